import math
from pathlib import Path

import numpy as np
import pytest
import torch
from training_files import COLOURS, TrainingFiles
from transformers import AutoProcessor, BlipForConditionalGeneration, BlipForImageTextRetrieval

from caploom.errors import StoreError, TrainingError
from caploom.training.blip_losses import (
    captioning_loss,
    contrastive_targets,
    hard_negatives,
    soft_cross_entropy,
    softened,
)
from caploom.training.blip_model import create_blip, load_blip, save_blip
from caploom.training.blip_queue import FeatureQueue
from caploom.training.images import ImageDecoder
from caploom.training.job import TrainingJob, TrainingResult
from caploom.training.settings import BlipTrainerSettings
from caploom.training.trainer import train

torch.set_num_threads(1)


def train_blip(files: list[Path], out: Path, state: Path | None = None, **changes: object) -> TrainingResult:
    out.mkdir(exist_ok=True)
    settings = {"kind": "blip", "model": "blip-picture-book", "steps": 4, "batch_size": 8, "device": "cpu"}
    trainer = BlipTrainerSettings.model_validate({**settings, "learning_rate": 1e-3, "save_every": 2, **changes})
    result = train(TrainingJob(training_set=files, settings=trainer, seed=3, out=out, state=state), lambda event: None)
    assert result is not None
    return result


@pytest.fixture
def files(tmp_path: Path) -> TrainingFiles:
    return TrainingFiles(tmp_path)


def eight_colours(files: TrainingFiles) -> Path:
    """One picture of each colour, so that each is told from all others in a batch."""
    return files.shard("eight", [files.row(path, [f"the colour {name}"]) for path, name in files.images(8)])


def test_targets_share_a_row_among_an_image_s_texts() -> None:
    to_texts, to_images = contrastive_targets(torch.tensor([0, 0, 1, 2]), images=3, candidates=6)
    assert to_texts.tolist() == [[0.5, 0.5, 0, 0, 0, 0], [0, 0, 1, 0, 0, 0], [0, 0, 0, 1, 0, 0]]
    assert to_images.tolist() == [[1, 0, 0, 0, 0, 0], [1, 0, 0, 0, 0, 0], [0, 1, 0, 0, 0, 0], [0, 0, 1, 0, 0, 0]]


def test_contrast_of_single_texts_is_cross_entropy() -> None:
    logits = torch.randn(5, 5, generator=torch.Generator().manual_seed(0))
    to_texts, _ = contrastive_targets(torch.arange(5), images=5, candidates=0)
    expected = torch.stack([logits[i].logsumexp(0) - logits[i, i] for i in range(5)]).mean()
    assert soft_cross_entropy(logits, to_texts).item() == pytest.approx(expected.item(), abs=1e-6)


def test_soft_targets_still_sum_to_one_and_mix_by_their_weight() -> None:
    targets, _ = contrastive_targets(torch.arange(4), images=4, candidates=9)
    logits = torch.randn(4, 9, generator=torch.Generator().manual_seed(1))
    soft = softened(targets, logits, 0.4)
    assert torch.allclose(soft.sum(dim=1), torch.ones(4))
    assert torch.allclose(soft, 0.6 * targets + 0.4 * logits.softmax(dim=1))


def test_hard_negatives_are_allowed_ones_and_mostly_the_most_similar() -> None:
    generator = torch.Generator().manual_seed(0)
    similarity = torch.tensor([[50.0, 3.0, 0.0, 0.0], [-9.0, -9.0, 99.0, -9.0]])
    allowed = torch.tensor([[False, True, True, True], [True, True, False, True]])
    drawn = torch.stack([hard_negatives(similarity, allowed, generator) for _ in range(400)])
    assert allowed[torch.arange(2), drawn].all()  # also where all that is allowed has no weight left
    similar = torch.tensor([[0.0, 3.0, 0.0, 0.0]])
    drawn = torch.stack([hard_negatives(similar, allowed[:1], generator) for _ in range(400)])
    assert (drawn == 1).float().mean() == pytest.approx(math.exp(3) / (math.exp(3) + 2), abs=0.05)


def test_captioning_loss_is_of_the_next_tokens_without_padding() -> None:
    generator = torch.Generator().manual_seed(0)
    logits, tokens = torch.randn(2, 4, 7, generator=generator), torch.tensor([[5, 3, 2, 0], [5, 1, 0, 0]])
    log = logits.log_softmax(dim=-1)
    expected = []
    for text, place, token in ((0, 0, 3), (0, 1, 2), (1, 0, 1)):
        expected.append(-(0.9 * log[text, place, token] + 0.1 * log[text, place].mean()))
    assert captioning_loss(logits, tokens).item() == pytest.approx(torch.stack(expected).mean().item(), abs=1e-5)


def test_the_queue_keeps_the_newest_and_wraps_around() -> None:
    queue = FeatureQueue(5, 2, seed=0)
    for number in range(4):
        queue.push(torch.full((2, 2), float(number)), torch.full((1, 2), float(number)))
    images, texts = queue.features
    assert sorted(images[:, 0].tolist()) == [1.0, 2.0, 2.0, 3.0, 3.0]
    assert sorted(texts[:, 0].tolist())[1:] == [0.0, 1.0, 2.0, 3.0] or 3.0 in texts[:, 0].tolist()
    queue.push(torch.arange(14.0).view(7, 2), torch.zeros(0, 2))
    assert sorted(images[:, 0].tolist()) == [4.0, 6.0, 8.0, 10.0, 12.0]
    copy = FeatureQueue(5, 2, seed=9)
    copy.load_state({name: tensor.clone() for name, tensor in queue.state().items()})
    for each in (queue, copy):
        each.push(torch.full((3, 2), 7.0), torch.full((3, 2), 8.0))
    assert all(torch.equal(one, other) for one, other in zip(queue.features, copy.features, strict=True))


def test_text_layers_are_shared_but_for_self_attention() -> None:
    network = create_blip("blip-picture-book", seed=0).network
    encoder = network.retrieval.text_encoder.encoder.layer[0]
    decoder = network.captioning.text_decoder.bert.encoder.layer[0]
    assert network.captioning.vision_model is network.retrieval.vision_model
    assert decoder.crossattention is encoder.crossattention
    assert decoder.output is encoder.output
    assert decoder.attention is not encoder.attention
    head = network.captioning.text_decoder.cls.predictions.decoder.weight
    assert head is network.retrieval.text_encoder.embeddings.word_embeddings.weight


def test_english_is_spelled_and_not_unknown() -> None:
    model = create_blip("blip-picture-book", seed=0)
    ids = model.tokenize(["A quick brown fox jumps, doesn't it? 12% of 3.5", "a cat"])
    assert ids.shape == (2, model.max_text_length)
    assert model.tokenizer.unk_token_id not in ids
    assert ids[1].tolist()[3] == model.tokenizer.sep_token_id  # known words are one token each
    assert set(ids[1].tolist()[4:]) == {0}


def test_training_learns_to_tell_colours_apart_to_match_and_to_name_them(tmp_path: Path, files: TrainingFiles) -> None:
    result = train_blip([eight_colours(files)], tmp_path / "out", steps=45, warmup_steps=8, learning_rate=2e-3)
    assert set(result.parts) == {"itc", "itm", "lm"}
    assert result.parts["itc"][-1][1] < 0.1 < result.parts["itc"][0][1]
    # Two of three pairs are wrong: who knows no more than that pays 0.637.
    assert result.parts["itm"][-1][1] < 0.1 < 0.6 < result.parts["itm"][0][1]
    model = load_blip(tmp_path / "out")
    images, tokens = images_of(model, files), model.tokenize([f"the colour {name}" for name in COLOURS])
    with torch.inference_mode():
        features, states = model.network.encode_images(images)
        similarities = features @ model.network.encode_texts(tokens).T
        matches = torch.stack([model.network.match(state.expand(8, -1, -1), tokens)[:, 1] for state in states])
        said = model.network.captioning.generate(pixel_values=images, max_new_tokens=20)  # letter by letter
    assert similarities.argmax(dim=1).tolist() == similarities.argmax(dim=0).tolist() == list(range(8))
    assert matches.argmax(dim=1).tolist() == matches.argmax(dim=0).tolist() == list(range(8))
    assert decoded(model, said) == [f"the colour {name}" for name in COLOURS]


def images_of(model, files: TrainingFiles) -> torch.Tensor:
    from caploom.storage.records import image_identity

    decoder = ImageDecoder(model.preprocessing)
    pixels = [decoder.decode(str(path), image_identity(path.read_bytes())) for path, _ in files.images(8)]
    return decoder.normalize(torch.from_numpy(np.stack(pixels)))


def decoded(model, ids: torch.Tensor) -> list[str]:
    return model.tokenizer.batch_decode(ids, skip_special_tokens=True)


def test_transformers_loads_both_models_of_a_checkpoint(tmp_path: Path, files: TrainingFiles) -> None:
    train_blip([eight_colours(files)], tmp_path / "out", steps=1)
    model = load_blip(tmp_path / "out")
    retrieval = BlipForImageTextRetrieval.from_pretrained(tmp_path / "out" / "retrieval").eval()
    captioning = BlipForConditionalGeneration.from_pretrained(tmp_path / "out" / "captioning").eval()
    processor = AutoProcessor.from_pretrained(tmp_path / "out" / "retrieval")
    images, texts = images_of(model, files), [f"the colour {name}" for name in COLOURS]
    inputs = processor(text=texts, return_tensors="pt", padding=True)
    tokens = model.tokenize(texts)[:, : inputs["input_ids"].shape[1]]
    assert torch.equal(inputs["input_ids"], tokens)
    with torch.inference_mode():
        features, states = model.network.encode_images(images)
        ours = features @ model.network.encode_texts(tokens).T, model.network.match(states, tokens)
        theirs = [retrieval(**inputs, pixel_values=images, use_itm_head=itm).itm_score for itm in (False, True)]
        for one, other in zip(ours, theirs, strict=True):
            assert torch.allclose(one, other, atol=1e-5)
        said = [net.generate(pixel_values=images, max_new_tokens=8) for net in (model.network.captioning, captioning)]
    assert torch.equal(*said)


@pytest.mark.parametrize(
    ("options", "mix"),
    [({}, "uniform"), ({"queue_size": 12, "soft_labels": 0.4, "momentum": 0.9}, {"multi_positive": 2})],
    ids=["plain", "a queue and several texts"],
)
def test_a_resumed_training_ends_where_it_would_have(tmp_path: Path, files: TrainingFiles, options: dict, mix) -> None:
    captions = ("a {} picture", "the colour {}")
    rows = [files.row(path, [c.format(n) for c in captions], sources=["raw", "a"]) for path, n in files.images(16)]
    shard = files.shard("colours", rows, mix)
    whole = train_blip([shard], tmp_path / "whole", **options)

    class Killed(Exception):
        pass

    import caploom.training.trainer as module

    step = module._Loop._step

    def dies(loop, batch) -> None:
        if loop.step == 3:
            raise Killed
        step(loop, batch)

    state = tmp_path / "state"
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        patch.setattr(module._Loop, "_step", dies)
        train_blip([shard], tmp_path / "cut", state, **options)
    resumed = train_blip([shard], tmp_path / "resumed", state, **options)
    assert (resumed.resumed_from, resumed.losses) == (2, whole.losses)
    for name in ("retrieval", "captioning"):
        one, other = (tmp_path / run / name / "model.safetensors" for run in ("whole", "resumed"))
        assert one.read_bytes() == other.read_bytes()


def test_fine_tuning_starts_from_a_checkpoint(tmp_path: Path, files: TrainingFiles) -> None:
    model = create_blip("blip-picture-book", seed=11)
    (tmp_path / "first").mkdir()
    save_blip(model, tmp_path / "first")
    settings = BlipTrainerSettings.model_validate(
        {
            "kind": "blip",
            "model": "blip-picture-book",
            "steps": 1,
            "batch_size": 8,
            "learning_rate": 1e-9,
            "device": "cpu",
        }
    )
    (tmp_path / "out").mkdir()
    job = TrainingJob(
        training_set=[eight_colours(files)], settings=settings, seed=0, out=tmp_path / "out", initial=tmp_path / "first"
    )
    train(job, lambda event: None)
    found, expected = load_blip(tmp_path / "out").network.state_dict(), model.network.state_dict()
    assert all(torch.allclose(found[name], tensor, atol=1e-6) for name, tensor in expected.items())


def test_a_micro_batch_is_refused_with_its_reason(tmp_path: Path, files: TrainingFiles) -> None:
    with pytest.raises(TrainingError, match="BLIP chooses its hard negatives among all images"):
        train_blip([eight_colours(files)], tmp_path / "out", micro_batch=2)


def test_what_is_no_blip_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"picture-book\.json: it is not a BLIP architecture"):
        create_blip("picture-book", seed=0)
    with pytest.raises(TrainingError, match=r"nowhere: no BLIP can be loaded from it"):
        create_blip(str(tmp_path / "nowhere"), seed=0)
    with pytest.raises(StoreError, match="not a complete BLIP checkpoint"):
        load_blip(tmp_path)
