"""Trains one tiny captioner on picture-book scenes: ``python -m demo_captioners.train tiny-llava``.

This is how the weights in ``caploom/demo/captioners`` were made. It is not part of the setup: it takes more than a
quarter of an hour on one core per captioner. Everything is seeded; on one machine equal arguments give equal weights.
"""

import argparse
import json
import os
import random
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from transformers import PreTrainedModel, ProcessorMixin

import caploom.demo
from caploom.demo.scenes import Scene, compose, render
from caploom.demo.truth import score
from demo_captioners.architectures import FAMILIES, MAX_NEW_TOKENS, build
from demo_captioners.characters import CHARACTERS, describe, first_sentence
from demo_captioners.vision_pretraining import pretrain_vision

STEPS = {"tiny-llava": 1600, "tiny-qwen-vl": 900, "tiny-minigpt-4": 600, "tiny-otter": 550}
"""Unequal on purpose: a captioner that has seen less makes more mistakes."""

LOOKING_STEPS = {"tiny-llava": 0, "tiny-qwen-vl": 400, "tiny-minigpt-4": 800, "tiny-otter": 800}
"""Steps of ``pretrain_vision`` before that; none for LLaVA, whose patches reach the language model unchanged."""

_SCENES = 24_000
_LEARNING_RATE = 1.5e-3
_WEIGHT_DECAY = 0.01
_WARM_UP = 0.1
_CLIP = 1.0
_REPORT_EVERY = 25
_UNSEEN_SCENES = 512
_IGNORED = -100


@dataclass(frozen=True)
class Training:
    """The content of a captioner's ``training.json``: how it was made, and how good it is on unseen scenes.

    Attributes:
        captioner: its name.
        prompt: what the processor gets as text with each image.
        looking_steps: optimizer steps of vision pretraining, before it learned to write texts.
        cells_right: fraction of a picture's cells with a thing that it then recognised; None without such steps.
        steps: optimizer steps in which it learned to write texts.
        batch: scenes per step.
        scenes: different scenes seen.
        seed: seed of initial weights, order and texts.
        seconds: seconds of training, on ``threads`` threads.
        threads: threads that torch used.
        final_loss: mean cross-entropy, nats per token, over the last reported steps.
        parameters: number of weights.
        overlooks: things that its training texts leave out.
        vague_about: things that they call by a vague word.
        whole_text: truth scores of greedy texts on unseen scenes.
        first_sentence: the same for their first sentences.
    """

    captioner: str
    prompt: str
    looking_steps: int
    cells_right: float | None
    steps: int
    batch: int
    scenes: int
    seed: int
    seconds: float
    threads: int
    final_loss: float
    parameters: int
    overlooks: list[str]
    vague_about: list[str]
    whole_text: dict[str, float]
    first_sentence: dict[str, float]


def train(
    name: str,
    *,
    steps: int,
    batch: int,
    seed: int,
    out: Path,
    looking_steps: int = 0,
    scenes: int = _SCENES,
    unseen_scenes: int = _UNSEEN_SCENES,
) -> Training:
    """Train a captioner and write its folder.

    Args:
        name: a key of ``architectures.FAMILIES``.
        steps: optimizer steps.
        batch: scenes per step.
        seed: seed of initial weights, order and texts.
        out: folder for weights, processor and ``training.json``.
        looking_steps: optimizer steps of vision pretraining, before that.
        scenes: number of different scenes to train on.
        unseen_scenes: number of other scenes to measure on.
    """
    model, processor = build(name, seed)
    composed = [compose(seed, "captioner-training", index) for index in range(scenes)]
    pixels = np.stack([np.asarray(render(scene)) for scene in composed])
    prompt = FAMILIES[name].prompt
    batches = _batches(scenes, batch, seed)

    def images(chosen: Sequence[int]) -> list[Image.Image]:
        return [Image.fromarray(pixels[index]) for index in chosen]

    started = time.monotonic()
    cells_right = None
    if looking_steps:

        def pixel_values(chosen: Sequence[int]) -> dict[str, torch.Tensor]:
            pictures = images(chosen)
            return dict(processor(images=pictures, text=[prompt] * len(pictures), padding=True, return_tensors="pt"))

        cells_right = pretrain_vision(name, model, composed, pixel_values, batches, looking_steps, _LEARNING_RATE)
    loss = _fit(model, processor, name, composed, images, batches, steps, seed)
    seconds = time.monotonic() - started
    model.save_pretrained(out)
    processor.save_pretrained(out)

    unseen = [compose(seed, "evaluation", index) for index in range(unseen_scenes)]
    texts = dict(enumerate(caption(model, processor, prompt, [render(scene) for scene in unseen])))
    truth = {index: scene.things for index, scene in enumerate(unseen)}
    character = CHARACTERS[name]
    training = Training(
        captioner=name,
        prompt=prompt,
        looking_steps=looking_steps,
        cells_right=cells_right,
        steps=steps,
        batch=batch,
        scenes=scenes,
        seed=seed,
        seconds=round(seconds, 1),
        threads=torch.get_num_threads(),
        final_loss=round(loss, 4),
        parameters=sum(weights.numel() for weights in model.parameters()),
        overlooks=sorted(character.overlooks),
        vague_about=sorted(character.vague_about),
        whole_text=asdict(score(texts, truth)),
        first_sentence=asdict(score({index: first_sentence(text) for index, text in texts.items()}, truth)),
    )
    (out / "training.json").write_text(json.dumps(asdict(training), indent=2) + "\n", encoding="utf-8")
    return training


def caption(
    model: PreTrainedModel, processor: ProcessorMixin, prompt: str, images: Sequence[Image.Image], batch: int = 128
) -> list[str]:
    """Caption images greedily: one text per image, in their order."""
    model.eval()
    texts: list[str] = []
    for start in range(0, len(images), batch):
        some = list(images[start : start + batch])
        inputs = processor(images=some, text=[prompt] * len(some), padding=True, return_tensors="pt")
        with torch.inference_mode():
            tokens = model.generate(**inputs, do_sample=False, max_new_tokens=MAX_NEW_TOKENS)
        texts += processor.batch_decode(tokens[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    return texts


def _batches(scenes: int, batch: int, seed: int) -> Iterator[list[int]]:
    """Positions of scenes, ``batch`` at a time, endlessly: every scene once per round, in a new order each time."""
    order = np.random.default_rng(seed)
    waiting: list[int] = []
    while True:
        if len(waiting) < batch:
            waiting = order.permutation(scenes).tolist()
        yield waiting[:batch]
        waiting = waiting[batch:]


def _fit(
    model: PreTrainedModel,
    processor: ProcessorMixin,
    name: str,
    scenes: Sequence[Scene],
    images: Callable[[Sequence[int]], list[Image.Image]],
    batches: Iterator[list[int]],
    steps: int,
    seed: int,
) -> float:
    """Train the captioner to write texts, in place; returns the mean loss of the last reported steps."""
    rng = random.Random(seed)
    free = [weights for weights in model.parameters() if weights.requires_grad]
    optimizer = torch.optim.AdamW(free, lr=_LEARNING_RATE, weight_decay=_WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=_LEARNING_RATE, total_steps=steps, pct_start=_WARM_UP
    )
    model.train()
    started = time.monotonic()
    recent: list[float] = []
    for step in range(1, steps + 1):
        chosen = next(batches)
        texts = [describe(CHARACTERS[name], scenes[index], rng) for index in chosen]
        loss = _loss(model, processor, FAMILIES[name].prompt, images(chosen), texts)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(free, _CLIP)
        optimizer.step()
        schedule.step()
        recent = [*recent[1 - _REPORT_EVERY :], loss.item()]
        if step % _REPORT_EVERY == 0 or step == steps:
            seconds = (time.monotonic() - started) / step
            print(f"{name} step {step}/{steps} loss {sum(recent) / len(recent):.4f} {seconds:.2f} s/step", flush=True)
    return sum(recent) / len(recent)


def _loss(
    model: PreTrainedModel, processor: ProcessorMixin, prompt: str, images: list[Image.Image], texts: list[str]
) -> torch.Tensor:
    """Cross-entropy of the texts alone, after exactly the prompt that is used for captioning."""
    inputs = processor(images=images, text=[prompt] * len(images), padding=True, return_tensors="pt")
    tokenizer = processor.tokenizer
    encoded = tokenizer(
        [text + tokenizer.eos_token for text in texts], padding=True, padding_side="right", return_tensors="pt"
    )
    targets, mask = encoded["input_ids"], encoded["attention_mask"]
    # The last token of the text is only predicted, never read.
    read, read_mask = targets[:, :-1], mask[:, :-1]
    inputs["input_ids"] = torch.cat([inputs["input_ids"], read], dim=1)
    inputs["attention_mask"] = torch.cat([inputs["attention_mask"], read_mask], dim=1)
    if "mm_token_type_ids" in inputs:
        inputs["mm_token_type_ids"] = torch.cat([inputs["mm_token_type_ids"], torch.zeros_like(read)], dim=1)
    if "image_attention_mask" in inputs:
        last = inputs["image_attention_mask"][:, -1:]
        inputs["image_attention_mask"] = torch.cat(
            [inputs["image_attention_mask"], last.expand(-1, read.shape[1], -1)], dim=1
        )
    logits = model(**inputs, use_cache=False).logits[:, -targets.shape[1] :]
    labels = targets.masked_fill(mask == 0, _IGNORED)
    return torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=_IGNORED)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m demo_captioners.train", description=__doc__)
    parser.add_argument("captioner", choices=sorted(FAMILIES))
    parser.add_argument("--steps", type=int, help="optimizer steps (default: the captioner's own)")
    parser.add_argument("--looking-steps", type=int, help="steps of vision pretraining (default: the captioner's own)")
    parser.add_argument("--batch", type=int, default=128, help="scenes a step")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--scenes", type=int, default=_SCENES, help="different scenes to train on")
    parser.add_argument("--out", type=Path, help="folder to write (default: where the package keeps its captioners)")
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    training = train(
        chosen.captioner,
        steps=chosen.steps or STEPS[chosen.captioner],
        batch=chosen.batch,
        seed=chosen.seed,
        looking_steps=LOOKING_STEPS[chosen.captioner] if chosen.looking_steps is None else chosen.looking_steps,
        out=chosen.out or Path(caploom.demo.__file__).with_name("captioners") / chosen.captioner,
        scenes=chosen.scenes,
    )
    print(json.dumps(asdict(training), indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
