"""The picture-book world: deterministic, varied, quick."""

import hashlib
import sys

import pytest

from caploom.demo import scenes
from caploom.demo.scenes import SPLITS, DrawingsMissingError, UnknownSplitError, compose, render
from caploom.demo.world import BACKGROUNDS, SCENE_SIZE, THING_BY_NAME, THINGS


def test_the_same_arguments_compose_the_same_scene():
    assert compose(3, "training", 17) == compose(3, "training", 17)


def test_composition_is_the_same_on_every_machine():
    """A change of this value changes every picture book and orphans the captioners' training: bump its format."""
    composed = "\n".join(repr(compose(0, split, index)) for split in SPLITS for index in range(50))
    assert hashlib.sha256(composed.encode()).hexdigest()[:16] == "4c363eb9a2362467"


def test_splits_share_no_scene():
    def looks(split):
        return {(scene.background, scene.placements) for scene in (compose(0, split, index) for index in range(2_000))}

    training, evaluation, captioners = looks("training"), looks("evaluation"), looks("captioner-training")
    assert training.isdisjoint(evaluation)
    assert training.isdisjoint(captioners)
    assert evaluation.isdisjoint(captioners)


def test_scenes_hold_two_or_three_different_things_and_use_the_whole_world():
    composed = [compose(1, "training", index) for index in range(1_000)]
    assert {len(scene.things) for scene in composed} == {2, 3}
    assert all(len(set(scene.things)) == len(scene.things) for scene in composed)
    assert {thing for scene in composed for thing in scene.things} == set(THING_BY_NAME)
    assert {scene.background for scene in composed} == {background.name for background in BACKGROUNDS}


def test_things_stay_inside_the_picture_and_hardly_cover_one_another():
    for index in range(1_000):
        placements = compose(2, "training", index).placements
        for placement in placements:
            for centre in (placement.x, placement.y):
                assert placement.size / 2 - 1 <= centre <= SCENE_SIZE - placement.size / 2 + 1
        for i, a in enumerate(placements):
            for b in placements[:i]:
                apart = max(abs(a.x - b.x), abs(a.y - b.y))
                assert apart >= 0.8 * (a.size + b.size) / 2


def test_an_unknown_split_is_refused_with_the_known_ones():
    with pytest.raises(UnknownSplitError, match=r"'test'.*training, evaluation"):
        compose(0, "test", 0)


def test_a_scene_is_a_64_pixel_rgb_picture_and_every_thing_shows():
    image = render(compose(0, "evaluation", 0))
    assert (image.mode, image.size) == ("RGB", (64, 64))
    pictures = {render(compose(0, "evaluation", index)).tobytes() for index in range(50)}
    assert len(pictures) == 50


def test_the_world_has_32_things_with_drawings_of_their_own():
    assert len(THINGS) == 32
    assert len({thing.drawing for thing in THINGS}) == 32
    assert len(BACKGROUNDS) == 8


def test_a_missing_drawing_package_is_named_with_the_remedy(monkeypatch):
    scenes._drawing.cache_clear()
    scenes._sprite.cache_clear()
    monkeypatch.setitem(sys.modules, "resvg_py", None)
    with pytest.raises(DrawingsMissingError, match=r"pip install 'caploom\[demo\]'"):
        render(compose(0, "evaluation", 0))
