"""An inbox that moved or was copied, alone or with everything else, is the one that it was."""

import shutil
from pathlib import Path

import pytest

from caploom.images.location import read_location
from caploom.stages.captions import shard_images
from caploom.stages.raw_pairs import ingest_shard
from caploom.stages.shards import shard_names
from caploom.storage.records import image_identity


def _take(fed):
    for number in range(4):
        fed.drop(f"deep/{number}.png", number, f"caption {number}")
    fed.settled()
    for shard in shard_names(fed.factory):
        ingest_shard(fed.factory, shard)


def _assert_images_are_read(fed) -> None:
    for shard in shard_names(fed.factory):
        images = shard_images(fed.factory, shard)
        assert images
        assert all(image_identity(read_location(image.path)) == image.image_id for image in images)


def _copied(before: Path, after: Path) -> None:
    """A copy whose files are of now."""
    shutil.copytree(before, after, copy_function=shutil.copyfile)
    shutil.rmtree(before)


@pytest.mark.parametrize("move", [shutil.move, _copied])
@pytest.mark.parametrize("keep", ["copy", "reference"])
def test_an_inbox_in_another_folder_has_no_new_files(make_fed, move, keep):
    fed = make_fed(keep=keep)
    _take(fed)
    move(fed.inbox, fed.root / "elsewhere")
    fed.inbox = fed.root / "elsewhere"
    fed.settings["folders"] = ["elsewhere"]
    scan = fed.scan()
    assert scan.new_shards == []
    assert any("4 of its files" in message or "8 of its files" in message for message in scan.messages)
    assert fed.scan(after=4_000).new_shards == []
    _assert_images_are_read(fed)
    fed.drop("new.png", 9)
    assert fed.settled().new_shards == ["inbox-00001"]
    assert fed.images() == ["deep/0.png", "deep/1.png", "deep/2.png", "deep/3.png", "new.png"]
    ingest_shard(fed.factory, "inbox-00001")
    _assert_images_are_read(fed)


@pytest.mark.parametrize("keep", ["copy", "reference"])
def test_an_inbox_that_moves_with_its_store_and_again_is_followed(make_fed, tmp_path, keep):
    fed = make_fed(keep=keep)
    _take(fed)
    for name in ("second", "third"):
        place = tmp_path.with_name(f"{tmp_path.name}-{name}")
        shutil.move(fed.root, place)
        fed.root, fed.inbox = place, place / "inbox"
        assert fed.settled().new_shards == []
        assert ingest_shard(fed.factory, "inbox-00000").reused
        _assert_images_are_read(fed)


def test_other_files_of_the_same_names_and_sizes_are_new(make_fed):
    fed = make_fed()
    _take(fed)
    shutil.rmtree(fed.inbox)
    fed.inbox = fed.root / "elsewhere"
    fed.settings["folders"] = ["elsewhere"]
    for number in range(4):
        fed.drop(f"deep/{number}.png", number + 100, f"caption {number}")
    assert fed.settled().new_shards == ["inbox-00001"]
