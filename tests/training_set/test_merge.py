import json
from collections import Counter

import pytest
from small_factory import ColourBackend

from caploom.captioning.caption_shard import caption_shard
from caploom.errors import MissingArtifactError
from caploom.lineage.checks import check_sheared, check_training_set
from caploom.readers.ingest import ingest_shard, ingested_shards, read_pairs
from caploom.readers.shards import cut_new_shards, shard_names
from caploom.shearing.shear import shear_recipe, sheared_tables
from caploom.tables import read_table
from caploom.training_set.merge import merge_training_set, training_files


def captioned(factory):
    cut_new_shards(factory)
    for shard in shard_names(factory):
        ingest_shard(factory, shard)
        for captioner in factory.config.captioners:
            caption_shard(factory, captioner, shard, ColourBackend)
    return factory


def merged(factory, name="sheared"):
    recipe = factory.config.recipe(name)
    shear_recipe(factory, recipe)
    return merge_training_set(factory, recipe)


def rows_of(training_set):
    return [row for path in training_files(training_set) for row in read_table(path).to_pylist()]


def test_each_image_has_its_own_raw_and_sheared_captions(write_source, make_factory):
    factory = captioned(make_factory(write_source(25)))
    training_set = merged(factory)
    pairs = {row["image_id"]: row for artifact in ingested_shards(factory) for row in read_pairs(artifact).to_pylist()}
    rows = rows_of(training_set)
    assert sorted(row["image_id"] for row in rows) == sorted(pairs)
    for row in rows:
        assert row["sources"] == ["raw", "colours"]
        number = int(pairs[row["image_id"]]["image"].removesuffix(".png"))
        colour = ["red", "green", "blue", "white"][number % 4]
        assert row["captions"] == [f"photo {number}", f"A {colour} square."]
        assert row["weights"] == [0.5, 0.5]
    assert all(outcome.passed for outcome in check_training_set(factory, training_set, ingested_shards(factory)))


def test_sheared_captions_are_spans_of_the_ledgers_text(write_source, make_factory):
    factory = captioned(make_factory(write_source(5)))
    recipe = factory.config.recipe("sheared")
    artifact = shear_recipe(factory, recipe)
    parts = sheared_tables(factory, recipe)
    for row in (row for part in parts for row in read_table(part.file("sheared.parquet")).to_pylist()):
        whole = row["caption"] + " It is said to hide a dragon."
        assert whole[row["start"] : row["end"]] == row["caption"]
        assert (row["source_words"], row["words"]) == (10, 3)
    assert all(outcome.passed for outcome in check_sheared(artifact, parts))


def test_recipes_with_the_same_captioner_and_shear_share_the_sheared_tables(write_source, make_factory):
    recipes = {name: {"captioners": "all", "shear": "first"} for name in ("one", "two")}
    factory = captioned(make_factory(write_source(5), recipes=recipes))
    for name in recipes:
        shear_recipe(factory, factory.config.recipe(name))
    one, two = (sheared_tables(factory, factory.config.recipe(name)) for name in recipes)
    assert [part.folder for part in one] == [part.folder for part in two]


def test_the_json_is_the_seeds_format_in_the_same_order(write_source, make_factory):
    training_set = merged(captioned(make_factory(write_source(12))))
    entries = json.loads(training_set.file("training.json").read_text(encoding="utf-8"))
    expected = [
        {"image": row["image"], "caption": caption, "source": source}
        for row in rows_of(training_set)
        for caption, source in zip(row["captions"], row["sources"], strict=True)
    ]
    assert entries == expected
    assert len(entries) == 24


def test_the_json_can_be_switched_off(write_source, make_factory):
    training_set = merged(captioned(make_factory(write_source(3), training_json=False)))
    assert "training.json" not in training_set.manifest.files


def test_the_order_is_a_shuffle_and_the_same_each_time(write_source, make_factory, tmp_path):
    source = write_source(40)
    orders = []
    for store in ("a", "b"):
        training_set = merged(captioned(make_factory(source, store=str(tmp_path / store))))
        orders.append([row["image"] for row in rows_of(training_set)])
    assert orders[0] == orders[1]
    assert orders[0] != sorted(orders[0])


def test_concatenate_makes_one_row_a_caption(write_source, make_factory):
    recipes = {"all": {"captioners": "all", "mix": "concatenate"}}
    rows = rows_of(merged(captioned(make_factory(write_source(6), recipes=recipes)), "all"))
    assert len(rows) == 12
    assert all((len(row["captions"]), row["weights"]) == (1, [1.0]) for row in rows)


def test_an_image_that_a_captioner_failed_on_keeps_its_other_captions(write_source, make_factory):
    source = write_source(6)
    factory = make_factory(source)
    cut_new_shards(factory)
    ingest_shard(factory, "shard-00000")
    (source / "images" / "0001.png").unlink()
    caption_shard(factory, "colours", "shard-00000", ColourBackend)
    sources = Counter(tuple(row["sources"]) for row in rows_of(merged(factory)))
    assert sources == {("raw", "colours"): 5, ("raw",): 1}


def test_an_image_in_two_shards_is_one_row_with_all_its_captions(write_source, make_factory):
    factory = captioned(make_factory(write_source(10, [{"image": "0000.png", "caption": "again"}])))
    training_set = merged(factory)
    row = next(row for row in rows_of(training_set) if row["image"] == "0000.png")
    assert row["captions"] == ["again", "photo 0", "A red square."]
    assert training_set.manifest.rows.reasons == {"repeated_caption": 1}
    assert all(outcome.passed for outcome in check_training_set(factory, training_set, ingested_shards(factory)))


def test_a_shard_that_is_not_captioned_yet_is_named(write_source, make_factory):
    factory = make_factory(write_source(3))
    cut_new_shards(factory)
    ingest_shard(factory, "shard-00000")
    with pytest.raises(MissingArtifactError, match=r"materialize captions/colours \[shard-00000\] first"):
        merged(factory)
