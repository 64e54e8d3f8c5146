"""A step of BLIP against a slow oracle that looks at one pair at a time."""

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from training_files import COLOURS
from transformers import CLIPConfig, CLIPModel

from caploom.errors import TrainingError
from caploom.training.batches import Batch
from caploom.training.blip_model import BlipNetwork, create_blip, save_blip
from caploom.training.blip_objective import BlipObjective
from caploom.training.clip_model import ARCHITECTURES
from caploom.training.objective import StepContext
from caploom.training.processes import Processes
from caploom.training.settings import BlipTrainerSettings

torch.set_num_threads(1)


def objective(**changes: Any) -> BlipObjective:
    settings = {"kind": "blip", "model": "blip-picture-book", "steps": 100, "batch_size": 8, "device": "cpu"}
    made = BlipObjective(BlipTrainerSettings.model_validate({**settings, **changes}), seed=1)
    made.module.train()
    return made


def context(made: BlipObjective, step: int = 0, half: torch.dtype | None = None) -> StepContext:
    processes = Processes(0, 1, torch.device("cpu"))
    return StepContext(step, 100, made.module, processes, torch.amp.GradScaler("cpu", enabled=False), half)


def batch(made: BlipObjective, images: int = 5, owners: list[int] | None = None, seed: int = 0) -> Batch:
    """Noise, and texts of different lengths."""
    count = images if owners is None else len(owners)
    texts = [f"the colour {list(COLOURS)[i % 8]}" + ", nothing else" * (i % 3) for i in range(count)]
    pixels = torch.randint(0, 255, (images, 3, 64, 64), generator=torch.Generator().manual_seed(seed))
    return Batch(pixels.to(torch.uint8), made.tokenize(texts), None if owners is None else torch.tensor(owners))


def network_of(made: BlipObjective) -> BlipNetwork:
    found = made.module.network
    assert isinstance(found, BlipNetwork)
    return found


def features(
    made: BlipObjective, network: BlipNetwork, of: Batch
) -> tuple[list[torch.Tensor], list[torch.Tensor], list[torch.Tensor]]:
    """Features of images and of texts, and states of images: each image and each text alone, without padding."""
    pixels = made.decoder.normalize(of.images)
    with torch.no_grad():
        encoded = [network.encode_images(pixels[i : i + 1]) for i in range(len(pixels))]
        texts = [network.encode_texts(tokens[tokens != 0][None])[0] for tokens in of.tokens]
    return [each[0][0] for each in encoded], texts, [each[1] for each in encoded]


def cross_entropy(query: torch.Tensor, candidates: list[torch.Tensor], right: dict[int, float], by: float) -> float:
    logits = [float(query @ candidate) / by for candidate in candidates]
    whole = math.log(sum(math.exp(logit) for logit in logits))
    return sum(share * (whole - logits[place]) for place, share in right.items())


@pytest.mark.parametrize("owners", [None, [0, 0, 1, 2, 2, 2, 4, 3]], ids=["a text each", "several texts"])
def test_contrast_is_the_mean_cross_entropy_of_each_query(owners: list[int] | None) -> None:
    made = objective()
    of = batch(made, owners=owners)
    images, texts, _ = features(made, network_of(made), of)
    whose = owners or list(range(5))
    temperature = network_of(made).temperature.item()
    of_images = [
        cross_entropy(image, texts, {t: 1 / whose.count(i) for t, o in enumerate(whose) if o == i}, temperature)
        for i, image in enumerate(images)
    ]
    of_texts = [cross_entropy(text, images, {whose[t]: 1.0}, temperature) for t, text in enumerate(texts)]
    expected = (sum(of_images) / len(of_images) + sum(of_texts) / len(of_texts)) / 2
    assert float(made.backward(of, context(made))["itc"]) == pytest.approx(expected, abs=1e-4)


def test_with_a_queue_the_other_side_is_the_momentum_encoders_and_targets_are_softened() -> None:
    made = objective(queue_size=7, soft_labels=0.4, momentum=0.5)
    for number in range(2):  # fills five places, then wraps around
        made.backward(batch(made, seed=number), context(made))
        with torch.no_grad():
            for weight in network_of(made).parameters():
                weight += 0.01 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(number))
        made.after_step(context(made))
    of = batch(made, seed=5)
    images, texts, _ = features(made, network_of(made), of)
    slow_images, slow_texts, _ = features(made, made._momentum, of)
    assert not torch.allclose(images[0], slow_images[0], atol=1e-3)
    kept = made.state()
    all_texts = slow_texts + list(kept["queue.texts"].clone())
    all_images = slow_images + list(kept["queue.images"].clone())
    temperature = network_of(made).temperature.item()
    softness = 0.4 * 4 / 10  # the fourth of ten steps in which it rises

    def loss(queries: list[torch.Tensor], slow: list[torch.Tensor], candidates: list[torch.Tensor]) -> float:
        total = 0.0
        for i, query in enumerate(queries):
            view = torch.stack([slow[i] @ candidate for candidate in candidates]).div(temperature).softmax(0).tolist()
            right = {place: softness * share for place, share in enumerate(view)}
            right[i] += 1 - softness
            total += cross_entropy(query, candidates, right, temperature)
        return total / len(queries)

    expected = (loss(images, slow_images, all_texts) + loss(texts, slow_texts, all_images)) / 2
    found = made.backward(of, context(made, step=3))
    assert float(found["itc"]) == pytest.approx(expected, abs=1e-4)
    made.after_step(context(made, step=3))
    newest = made.state()["queue.images"]  # ten were kept before: the next places are 3 to 6, then 0
    for place, image in zip((3, 4, 5, 6, 0), slow_images, strict=True):
        torch.testing.assert_close(newest[place], image, atol=1e-4, rtol=0)


def test_momentum_encoders_move_by_their_share() -> None:
    made = objective(soft_labels=0.4, momentum=0.9)
    before = [weight.clone() for weight in made._momentum.parameters()]
    made.backward(batch(made), context(made))
    with torch.no_grad():
        for weight in network_of(made).parameters():
            weight += 1.0
        network_of(made).temperature.fill_(0.2)
    made.after_step(context(made))
    for old, slow, fast in zip(before, made._momentum.parameters(), network_of(made).parameters(), strict=True):
        torch.testing.assert_close(slow, 0.9 * old + 0.1 * fast)


def test_matching_and_captioning_are_means_over_pairs_looked_at_alone() -> None:
    """Of two images with a text each, the hard negatives can only be each other."""
    made = objective()
    network, of = network_of(made), batch(made, images=2)
    _, _, states = features(made, network, of)
    matching, captioning = [], []
    for i, tokens in enumerate(of.tokens):
        text = tokens[tokens != 0][None]
        other = of.tokens[1 - i][of.tokens[1 - i] != 0][None]
        with torch.no_grad():
            for image, words, label in ((i, text, 1), (1 - i, text, 0), (i, other, 0)):
                matching.append(-float(network.match(states[image], words).log_softmax(dim=1)[0, label]))
            started = torch.cat([torch.tensor([[made._model.start_token]]), text[:, 1:]], dim=1)
            said = network.caption_logits(states[i], started).log_softmax(dim=2)[0]
        for place, token in enumerate(started[0, 1:].tolist()):
            captioning.append(-float(0.9 * said[place, token] + 0.1 * said[place].mean()))
    losses = made.backward(of, context(made))
    assert float(losses["itm"]) == pytest.approx(sum(matching) / 6, abs=1e-5)
    assert float(losses["lm"]) == pytest.approx(sum(captioning) / len(captioning), abs=1e-5)
    assert float(losses["loss"]) == pytest.approx(sum(float(losses[part]) for part in ("itc", "itm", "lm")), abs=1e-5)


def test_every_parameter_is_trained() -> None:
    made = objective()
    made.backward(batch(made), context(made))
    assert [name for name, weight in made.module.named_parameters() if weight.grad is None] == []


@pytest.mark.parametrize("options", [{}, {"queue_size": 6, "soft_labels": 0.4}], ids=["plain", "queue"])
def test_activations_computed_again_leave_the_same_gradients(options: dict[str, Any]) -> None:
    kept, again = objective(**options), objective(gradient_checkpointing=True, **options)
    computed: dict[bool, int] = {False: 0, True: 0}
    for made, twice in ((kept, False), (again, True)):
        layer = network_of(made).retrieval.text_encoder.encoder.layer[0].intermediate

        def count(*_: object, twice: bool = twice) -> None:
            computed[twice] += 1

        layer.register_forward_hook(count)
        made.backward(batch(made), context(made))
    assert (computed[False], computed[True]) == (3, 6)  # texts alone, with images, and of the captioner
    for one, other in zip(kept.module.parameters(), again.module.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, atol=1e-6, rtol=0)


def test_in_half_precision_similarities_keep_their_digits() -> None:
    made = objective()
    network = network_of(made)
    with torch.no_grad():
        network.temperature.fill_(0.01)
    of = batch(made)
    tokens = of.tokens[:, : int(of.tokens.ne(0).sum(dim=1).max())]
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        images = network.encode_images(made.decoder.normalize(of.images))[0].float()
        texts = network.encode_texts(tokens).float()
    logits, right = images @ texts.T / 0.01, torch.arange(5)
    both = [torch.nn.functional.cross_entropy(each, right) for each in (logits, logits.T)]
    found = made.backward(of, context(made, half=torch.bfloat16))["itc"]
    assert float(found) == pytest.approx(float(sum(both)) / 2, abs=1e-3)


def test_weights_that_are_not_all_there_are_refused(tmp_path: Path) -> None:
    """transformers itself would go on with random ones."""
    save_blip(create_blip("blip-picture-book", seed=0), tmp_path)
    again = create_blip(str(tmp_path / "retrieval"), seed=5)
    assert again.max_text_length == 35
    with pytest.raises(TrainingError, match=r"captioning: no BLIP can be loaded from it \(its weights lack itm_head"):
        create_blip(str(tmp_path / "captioning"), seed=0)
    # Its architecture and tokenizer are all that a training from scratch needs.
    (tmp_path / "captioning" / "model.safetensors").unlink()
    scratch = create_blip(str(tmp_path / "captioning"), seed=0, pretrained=False)
    assert scratch.network.retrieval.config.image_text_hidden_size == 64


def test_another_model_s_folder_is_refused(tmp_path: Path) -> None:
    small = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    CLIPModel(CLIPConfig(text_config={**small, "vocab_size": 50}, vision_config=small)).save_pretrained(tmp_path)
    save_blip(create_blip("blip-picture-book", seed=0), tmp_path / "blip")
    for file in ("tokenizer.json", "tokenizer_config.json", "processor_config.json"):
        shutil.copy(tmp_path / "blip" / "retrieval" / file, tmp_path)
    with pytest.raises(TrainingError, match=r"no BLIP can be loaded from it \(its config.json is of the kind clip\)"):
        create_blip(str(tmp_path), seed=0)


def test_an_architecture_whose_texts_are_longer_than_its_places_is_refused(tmp_path: Path) -> None:
    architecture = json.loads((ARCHITECTURES / "blip-picture-book.json").read_text())
    (tmp_path / "long.json").write_text(json.dumps({**architecture, "max_text_length": 65}))
    with pytest.raises(TrainingError, match=r"max_text_length is 65 and text\.max_position_embeddings 64"):
        create_blip(str(tmp_path / "long.json"), seed=0)
