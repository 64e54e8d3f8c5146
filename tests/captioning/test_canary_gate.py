import pytest
from small_factory import ColourBackend, write_pictures

from caploom.captioning.backend import CanaryRow
from caploom.errors import CanaryError
from caploom.stages.canaries import pass_canary
from caploom.stages.captions import caption_shard
from caploom.stages.raw_pairs import ingest_shard
from caploom.stages.shards import create_new_shards
from caploom.storage.store import Store

SHARD = "shard-00000"


class Padded(ColourBackend):
    """A captioner whose batches say another thing than its single images."""

    def canary(self, refs):
        self.asked = True
        return [CanaryRow(ref.image, "A dog.", "A red square.", equal=False) for ref in refs[:8]]


class Sound(ColourBackend):
    asked = 0

    def canary(self, refs):
        self.asked += 1
        return [CanaryRow(ref.image, "A red square.", "A red square.", equal=True) for ref in refs[:8]]


@pytest.fixture
def factory(write_source, make_factory):
    factory = make_factory(write_source(20))
    create_new_shards(factory)
    for shard in ("shard-00000", "shard-00001"):
        ingest_shard(factory, shard)
    return factory


def test_a_captioner_whose_batches_are_wrong_captions_nothing(factory):
    backend = Padded()
    with pytest.raises(CanaryError) as error:
        caption_shard(factory, "colours", SHARD, lambda: backend)
    assert "8 of 8 images get another caption" in str(error.value)
    assert '"A dog." in a batch, "A red square." alone' in str(error.value)
    assert backend.calls == []
    assert not list(factory.store.root.rglob("captions.parquet"))


def test_a_sound_captioner_is_asked_before_its_first_shard_only(factory):
    backend = Sound()
    for shard in ("shard-00000", "shard-00001"):
        caption_shard(factory, "colours", shard, lambda: backend)
    assert backend.asked == 1
    assert len(factory.store.list("canaries")) == 1


def test_where_nothing_is_batched_there_is_nothing_to_ask(tmp_path):
    assert pass_canary(Store(tmp_path), "colours", "f", ColourBackend(), write_pictures(tmp_path, 4)) is None
