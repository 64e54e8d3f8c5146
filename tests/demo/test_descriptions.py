"""What people write about scenes: raw captions as poor as web alt text, evaluation captions that are complete."""

import random
from statistics import mean

from caploom.demo.descriptions import evaluation_captions, raw_caption
from caploom.demo.scenes import compose
from caploom.demo.truth import named_things

SCENES = [compose(0, "training", index) for index in range(600)]


def test_raw_captions_name_at_most_one_thing_and_it_is_there():
    named = [named_things(raw_caption(scene, random.Random(scene.index))) for scene in SCENES]
    assert all(len(things) <= 1 and things <= set(scene.things) for things, scene in zip(named, SCENES, strict=True))
    assert 0.4 < mean(len(things) for things in named) < 0.6


def test_five_different_evaluation_captions_name_exactly_what_is_there():
    for scene in SCENES[:200]:
        captions = evaluation_captions(scene, random.Random(scene.index))
        assert len(set(captions)) == 5
        assert all(named_things(caption) == set(scene.things) for caption in captions)
