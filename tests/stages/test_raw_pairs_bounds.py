"""Bounds of what comes in, and the pack of images that later stages could not read where they lie."""

import io

import fsspec
import pytest
from PIL import Image

from caploom.config.factory import Factory
from caploom.config.factory_config import parse_config
from caploom.errors import ConfigError
from caploom.images.decode import read_identified_image
from caploom.inbox.scan import scan_inbox
from caploom.readers.ingest_settings import IngestSettings
from caploom.readers.source_row import SourceRow
from caploom.stages.raw_pairs import ingest_shard, read_pairs, validate_rows
from caploom.stages.shards import create_new_shards
from caploom.storage.tables import read_table


def encoded(width: int = 20, height: int = 10, number: int = 0) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), (number, 5, 5)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def row(tmp_path):
    def make(caption: str = "a caption of words", **size: int) -> SourceRow:
        path = tmp_path / "x.png"
        path.write_bytes(encoded(**size))
        return SourceRow(row=1, image="x.png", caption=caption, path=str(path))

    return make


@pytest.mark.parametrize(
    ("bounds", "caption", "size", "reason"),
    [
        ({"min_side": 11}, "fine words", (20, 10), "image_too_small"),
        ({"min_side": 10}, "fine words", (20, 10), None),
        ({"max_side": 19}, "fine words", (20, 10), "image_too_big"),
        ({"min_pixels": 201}, "fine words", (20, 10), "image_too_small"),
        ({"max_pixels": 199}, "fine words", (20, 10), "image_too_big"),
        ({"max_aspect_ratio": 1.9}, "fine words", (20, 10), "aspect_ratio"),
        ({"max_aspect_ratio": 2}, "fine words", (10, 20), None),
        ({"min_caption_words": 3}, "two words", (20, 10), "caption_too_short"),
        ({"max_caption_words": 1}, "two words", (20, 10), "caption_too_long"),
        ({"min_caption_characters": 10}, "two words", (20, 10), "caption_too_short"),
        ({}, "x" * 1_000_000, (20, 10), "caption_too_long"),
        ({"refuse_captions": ["(?i)^stock"]}, "Stock photo", (20, 10), "caption_refused"),
    ],
)
def test_what_is_out_of_bounds_is_a_failed_row_with_its_reason(row, bounds, caption, size, reason):
    pairs, failures = validate_rows(
        [row(caption, width=size[0], height=size[1])], bounds=IngestSettings.model_validate(bounds)
    )
    assert [failure["reason"] for failure in failures] == ([reason] if reason else [])
    assert len(pairs) + len(failures) == 1


def test_a_pattern_that_is_none_is_refused_in_the_yaml(write_source, make_factory):
    with pytest.raises(ConfigError, match=r"ingest.refuse_captions: '\(' is not a regular expression"):
        make_factory(write_source(1), ingest={"refuse_captions": ["("]})


def test_images_in_object_storage_are_copied_beside_their_pairs(make_factory, write_source):
    storage = fsspec.filesystem("memory")
    for number in range(3):
        storage.pipe(f"/far/{number}.png", encoded(number=number))
        storage.pipe(f"/far/{number}.txt", f"number {number}".encode())
    storage.pipe("/far/again.png", encoded(number=0))
    storage.pipe("/far/again.txt", b"the first once more")
    factory = make_factory(write_source(1), pairs={"reader": "image_folder", "root": "memory://far"})
    (shard,) = create_new_shards(factory)
    made = ingest_shard(factory, shard)
    pairs = read_pairs(made).to_pylist()
    storage.rm("/far", recursive=True)
    assert [pair["raw_caption"] for pair in pairs] == ["number 0", "number 1", "number 2", "the first once more"]
    for pair in pairs:
        assert pair["path"].startswith(str(made.file("images.pack")))
        read_identified_image(pair["path"], pair["image_id"])
    assert made.manifest.summary == {
        "pairs": 4,
        "images": 3,  # one of them twice, with both its captions, and once in the pack
        "packed_bytes": made.file("images.pack").stat().st_size,
    }
    assert sum(len(encoded(number=number)) for number in range(3)) == made.manifest.summary["packed_bytes"]


def test_what_lies_on_disk_stays_there(make_factory, write_source):
    factory = make_factory(write_source(2))
    (shard,) = create_new_shards(factory)
    made = ingest_shard(factory, shard)
    assert not (made.folder / "images.pack").exists()
    assert len(read_table(made.file("failures.parquet"))) == 0


def test_what_an_inbox_held_is_ingested_again_after_it_was_emptied(tmp_path):
    (tmp_path / "inbox").mkdir()
    for number, width in enumerate((20, 60)):
        (tmp_path / "inbox" / f"{number}.png").write_bytes(encoded(width=width, height=width, number=number))
        (tmp_path / "inbox" / f"{number}.txt").write_text(f"number {number}")

    def factory(**ingest):
        settings = {
            "name": "fed",
            "store": "store",
            "inbox": {"folders": ["inbox"], "settle_seconds": 0, "gather_seconds": 0},
            "ingest": ingest,
            "trainers": {"tiny": {"model": "picture-book", "steps": 1, "batch_size": 1}},
            "evaluation_sets": {"e": {"reader": "picture_book", "folder": "e", "split": "evaluation", "scenes": 5}},
            "recipes": {"raw-only": {"captioners": []}},
        }
        return Factory.from_config(parse_config(settings, base=tmp_path, source="fed.yaml"))

    scan_inbox(factory())
    strict = ingest_shard(factory(min_side=50), "inbox-00000")
    assert (strict.manifest.rows.rows_out, strict.manifest.rows.reasons) == (1, {"image_too_small": 1})
    for file in (tmp_path / "inbox").iterdir():
        file.write_bytes(b"another file by now") if file.stem == "0" else file.unlink()
    loose = ingest_shard(factory(), "inbox-00000")
    assert loose.manifest.rows.rows_out == 2
    for pair in read_pairs(loose).to_pylist():
        read_identified_image(pair["path"], pair["image_id"])
    assert loose.manifest.address != strict.manifest.address
