"""The demo's captioners against the truth: what is sheared away was less true, and both are scored."""

import pytest
from small_factory import settings_of

from caploom.captioning.backend import load_backend
from caploom.config.factory import Factory
from caploom.questions.captioner_truth import captioner_truths
from caploom.stages.captions import caption_shard
from caploom.stages.raw_pairs import ingest_shard
from caploom.stages.shards import create_new_shards

SCENES = 24


@pytest.fixture
def captioned(write_source, write_config, tmp_path):
    """Scenes with the whole texts of one of the demo's captioners."""
    pairs = {"reader": "picture_book", "folder": str(tmp_path / "scenes"), "scenes": SCENES}
    llava = {"preset": "demo:tiny-llava"}
    settings = settings_of(write_source(1), pairs=pairs, shard_size=SCENES, captioners={"tiny-llava": llava})
    factory = Factory.from_yaml(write_config(settings))
    create_new_shards(factory)
    ingest_shard(factory, "shard-00000")
    settings = factory.config.captioners["tiny-llava"]
    caption_shard(factory, "tiny-llava", "shard-00000", lambda: load_backend(settings, factory.store))
    return factory


def test_whole_texts_are_scored_beside_what_a_shear_keeps_of_them(captioned):
    [truth] = captioner_truths(captioned)
    assert (truth.captioner, truth.shear) == ("tiny-llava", "first")
    assert truth.whole.right_share < truth.sheared.right_share - 0.1
    assert truth.whole.named_share >= truth.sheared.named_share
