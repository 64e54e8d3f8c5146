"""The shipped captioners: members of their families, loaded as the big ones are, as good and as bad as stated."""

import json
from functools import cache
from pathlib import Path

import pytest

import caploom.demo
from caploom.demo.scenes import compose, render
from caploom.demo.truth import named_things, score
from demo_captioners.characters import CHARACTERS, first_sentence

FOLDERS = Path(caploom.demo.__file__).parent / "captioners"
NAMES = sorted(CHARACTERS)
UNSEEN = [compose(77, "evaluation", index) for index in range(48)]
TRUTH = {scene.index: scene.things for scene in UNSEEN}


@cache
def loaded(name):
    from transformers import AutoModelForImageTextToText, AutoProcessor

    folder = FOLDERS / name
    return AutoModelForImageTextToText.from_pretrained(folder).eval(), AutoProcessor.from_pretrained(folder)


def generate(name, scenes):
    """New tokens of each scene in one batch, and the texts: the one call that serves all four."""
    import torch

    model, processor = loaded(name)
    images = [render(scene) for scene in scenes]
    inputs = processor(images=images, text=[prompt(name)] * len(images), padding=True, return_tensors="pt")
    with torch.inference_mode():
        # Said outright: `Blip2ForConditionalGeneration.generate` overrides the length of a generation config.
        tokens = model.generate(**inputs, do_sample=False, max_new_tokens=44)[:, inputs["input_ids"].shape[1] :]
    return tokens, processor.batch_decode(tokens, skip_special_tokens=True)


@cache
def unseen_texts(name):
    return dict(enumerate(generate(name, UNSEEN)[1]))


@cache
def record(name):
    return json.loads((FOLDERS / name / "training.json").read_text())


def prompt(name):
    return record(name)["prompt"]


@pytest.mark.parametrize("name", NAMES)
def test_a_captioner_is_at_most_6_mb(name):
    assert sum(path.stat().st_size for path in (FOLDERS / name).iterdir()) <= 6_000_000


@pytest.mark.parametrize("name", NAMES)
def test_a_batch_says_token_for_token_what_single_images_say(name):
    together, _ = generate(name, UNSEEN[:6])
    for scene, row in zip(UNSEEN, together, strict=False):
        (alone,), _ = generate(name, [scene])
        assert row[: len(alone)].tolist() == alone.tolist()
        assert set(row[len(alone) :].tolist()) <= {loaded(name)[1].tokenizer.pad_token_id}


@pytest.mark.parametrize("name", NAMES)
def test_every_text_reads_as_english_and_ends_by_itself(name):
    for text in unseen_texts(name).values():
        assert text[0].isupper()
        assert text.endswith(".")
        assert not any(wrong in text for wrong in (" .", " ,", "  ", "<", "\u2581"))
        assert text.count(".") == 3


@pytest.mark.parametrize("name", NAMES)
def test_it_looks_at_the_picture(name):
    """Far better than the same texts shuffled over the pictures."""
    first = {index: first_sentence(text) for index, text in unseen_texts(name).items()}
    shuffled = {index: first[(index + 1) % len(first)] for index in first}
    assert score(first, TRUTH).named_share > 0.4 > 2 * score(shuffled, TRUTH).named_share
    assert score(first, TRUTH).right_share > 0.7


@pytest.mark.parametrize("name", NAMES)
def test_its_first_sentence_is_truer_than_its_whole_text(name):
    first = {index: first_sentence(text) for index, text in unseen_texts(name).items()}
    assert score(unseen_texts(name), TRUTH).right_share < score(first, TRUTH).right_share - 0.1


@pytest.mark.parametrize("name", NAMES)
def test_it_has_the_blind_spots_that_it_states(name):
    said = {thing for text in unseen_texts(name).values() for thing in named_things(text)}
    assert said.isdisjoint(record(name)["overlooks"])
    assert said.isdisjoint(record(name)["vague_about"])
