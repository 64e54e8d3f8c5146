"""What the captioners learn to say: true at first, then less and less, and never of what they overlook."""

import random
import re

import pytest

from caploom.demo.scenes import compose
from caploom.demo.truth import named_things, score
from caploom.demo.world import THING_BY_NAME
from demo_captioners.characters import CHARACTERS, describe, first_sentence

SCENES = [compose(0, "training", index) for index in range(600)]


@pytest.mark.parametrize("name", CHARACTERS)
def test_it_is_true_at_first_and_less_and_less_so(name):
    character = CHARACTERS[name]
    truth = {scene.index: scene.things for scene in SCENES}
    texts = {scene.index: describe(character, scene, random.Random(scene.index)) for scene in SCENES}
    sentences = {index: re.findall(r"[^.]+\.", text) for index, text in texts.items()}
    assert all(len(of) == 3 for of in sentences.values())
    right = [score({index: of[i] for index, of in sentences.items()}, truth).right_share for i in range(3)]
    assert right[0] == 1.0
    assert 0.35 < right[1] < 0.65
    assert 0.1 < right[2] < 0.35


@pytest.mark.parametrize("name", CHARACTERS)
def test_it_never_names_its_blind_spots(name):
    character = CHARACTERS[name]
    said = {thing for scene in SCENES for thing in named_things(describe(character, scene, random.Random(scene.index)))}
    assert said == set(THING_BY_NAME) - character.blind_spots


@pytest.mark.parametrize("name", CHARACTERS)
def test_it_speaks_between_24_and_43_tokens(name):
    lengths = [
        len(re.findall(r"[\w-]+|[^\w\s]", describe(CHARACTERS[name], scene, random.Random(scene.index))))
        for scene in SCENES
    ]
    assert min(lengths) >= 24
    assert max(lengths) <= 43


def test_no_two_characters_share_a_blind_spot():
    spots = [thing for character in CHARACTERS.values() for thing in character.blind_spots]
    assert len(spots) == len(set(spots))
    assert set(spots) <= set(THING_BY_NAME)


def test_first_sentence_keeps_its_full_stop_and_survives_a_text_without_one():
    assert first_sentence("A dog. A cat.") == "A dog."
    assert first_sentence("A dog") == "A dog"
