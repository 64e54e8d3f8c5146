import json
from collections import Counter
from dataclasses import replace

from small_factory import picture

from caploom.stages.graph import Graph
from caploom.stages.raw_pairs import RAW_PAIRS, check_raw_pairs, ingest_shard, ingested_shards, read_pairs
from caploom.stages.registry import STAGES
from caploom.stages.shards import create_new_shards, shard_names
from caploom.storage.key_index import KeyIndex
from caploom.storage.records import image_identity, pair_identity
from caploom.storage.tables import read_table

NEXT = replace(RAW_PAIRS, code_version="next")

BAD_ROWS = [
    {"image": "missing.png", "caption": "x"},
    {"image": "empty.png", "caption": "x"},
    {"image": "text.png", "caption": "x"},
    {"image": "cut.png", "caption": "x"},
    {"image": "0000.png", "caption": ""},
    {"image": "0000.png", "caption": 7},
    {"image": "../../escape.png", "caption": "x"},
    {"image": "0000.png", "caption": "photo 0"},
    "no object",
]
REASONS = [
    "missing_image",
    "empty_image",
    "undecodable_image",
    "undecodable_image",
    "empty_caption",
    "caption_not_text",
    "path_leaves_root",
    "duplicate_pair",
    "row_not_an_object",
]


def make_bad_images(source):
    images = source / "images"
    (images / "empty.png").touch()
    (images / "text.png").write_text("no picture")
    picture(3).resize((200, 200)).save(images / "cut.png")
    data = (images / "cut.png").read_bytes()
    (images / "cut.png").write_bytes(data[: len(data) // 2])


def test_each_bad_row_is_a_failure_with_its_reason_and_the_rest_goes_on(write_source, make_factory):
    source = write_source(6, BAD_ROWS)
    make_bad_images(source)
    factory = make_factory(source, shard_size=100)
    create_new_shards(factory)
    artifact = ingest_shard(factory, "shard-00000")
    failures = read_table(artifact.file("failures.parquet")).to_pylist()
    assert sorted(failure["reason"] for failure in failures) == sorted(REASONS)
    assert all(failure["detail"].endswith(".") for failure in failures)
    assert len(read_pairs(artifact)) == 6
    assert (artifact.manifest.rows.rows_in, artifact.manifest.rows.rows_failed) == (15, 9)
    assert artifact.manifest.rows.reasons == dict(Counter(REASONS))
    assert all(outcome.passed for outcome in check_raw_pairs(Graph(factory), artifact))


def test_a_pair_is_identified_by_its_bytes_and_its_caption(write_source, make_factory):
    source = write_source(1)
    factory = make_factory(source)
    create_new_shards(factory)
    row = read_pairs(ingest_shard(factory, "shard-00000")).to_pylist()[0]
    assert row["image_id"] == image_identity((source / "images" / "0000.png").read_bytes())
    assert row["pair_id"] == pair_identity(row["image_id"], "photo 0")
    assert (row["width"], row["height"], row["image"]) == (16, 16, "0000.png")


def test_one_image_with_two_captions_keeps_both(write_source, make_factory):
    factory = make_factory(write_source(2, [{"image": "0000.png", "caption": "another"}]))
    create_new_shards(factory)
    pairs = read_pairs(ingest_shard(factory, "shard-00000")).to_pylist()
    assert [pair["raw_caption"] for pair in pairs] == ["photo 0", "photo 1", "another"]
    assert pairs[0]["image_id"] == pairs[2]["image_id"]


def test_a_pair_of_another_shard_is_not_taken_twice(write_source, make_factory):
    source = write_source(5)
    picture(0).save(source / "images" / "copy.png")
    rows = json.loads((source / "captions.json").read_text())
    (source / "captions.json").write_text(json.dumps([*rows, {"image": "copy.png", "caption": "photo 0"}]))
    factory = make_factory(source, shard_size=5)
    create_new_shards(factory)
    first, second = (ingest_shard(factory, name) for name in shard_names(factory))
    assert len(read_pairs(first)) == 5
    assert len(read_pairs(second)) == 0
    failure = read_table(second.file("failures.parquet")).to_pylist()[0]
    assert failure["reason"] == "duplicate_pair"
    assert "shard-00000" in failure["detail"]


def test_pairs_of_many_other_shards_are_found_by_their_index(write_source, make_factory, monkeypatch):
    monkeypatch.setitem(KeyIndex.__init__.__kwdefaults__, "unindexed", 0)
    source = write_source(6)
    rows = json.loads((source / "captions.json").read_text())
    for number in (1, 3):
        picture(number).save(source / "images" / f"copy-{number}.png")
        rows.append({"image": f"copy-{number}.png", "caption": f"photo {number}"})
    (source / "captions.json").write_text(json.dumps([*rows, {"image": "copy-1.png", "caption": "another"}]))
    factory = make_factory(source, shard_size=2)
    create_new_shards(factory)
    made = [ingest_shard(factory, name) for name in shard_names(factory)]
    assert [len(read_pairs(each)) for each in made] == [2, 2, 2, 0, 1]
    details = [failure["detail"] for failure in read_table(made[3].file("failures.parquet")).to_pylist()]
    assert ["shard-00000" in details[0], "shard-00001" in details[1]] == [True, True]
    # Pairs of an older version are in the index too, and no repetition of theirs is one.
    monkeypatch.setitem(STAGES, "raw_pairs", f"{__name__}:NEXT")
    assert len(read_pairs(ingest_shard(factory, "shard-00003"))) == 2
    assert len(read_pairs(ingest_shard(factory, "shard-00000"))) == 1


def test_an_older_version_of_a_shard_is_kept_and_not_counted(write_source, make_factory, monkeypatch):
    factory = make_factory(write_source(3))
    create_new_shards(factory)
    old = ingest_shard(factory, "shard-00000")
    monkeypatch.setitem(STAGES, "raw_pairs", f"{__name__}:NEXT")
    new = ingest_shard(factory, "shard-00000")
    assert old.folder != new.folder
    assert [artifact.folder for artifact in ingested_shards(factory)] == [new.folder]
    assert old.folder.is_dir()
