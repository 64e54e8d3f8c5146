"""Images that came without a caption: pairs that captioners caption, everywhere a raw caption is used."""

from dataclasses import replace

import pytest
from small_factory import ColourBackend, colour_name, picture

from caploom.errors import ConfigError
from caploom.questions.caption_statistics import statistics_of_shards
from caploom.questions.gallery_rows import shard_gallery
from caploom.stages.captions import caption_shard, check_captions, read_captions, read_failures
from caploom.stages.captions_cost import images_to_caption
from caploom.stages.graph import Graph
from caploom.stages.raw_pairs import check_raw_pairs, ingest_shard, raw_captions_in, raw_lengths, read_pairs
from caploom.stages.shards import create_new_shards, write_shard
from caploom.stages.sheared import shear_recipe
from caploom.stages.stage import Ref
from caploom.stages.training_set import check_training_set, merge_training_set
from caploom.storage.records import pair_identity
from caploom.storage.tables import read_table
from caploom.training_set.write import training_files

SHARD = "shard-00000"
LACKING = [{"image": "lone.png"}, {"image": "null.png", "caption": None}, {"image": "blank.png", "caption": " "}]
LONG = "A {} square, one two three four five six seven eight nine ten eleven twelve."


@pytest.fixture
def make_mixed(write_source, make_factory):
    """A factory over three pictures with captions of two words, and three without."""

    def make(**changes):
        source = write_source(3, LACKING)
        for number, row in enumerate(LACKING, start=10):
            picture(number).save(source / "images" / row["image"])
        factory = make_factory(source, **changes)
        create_new_shards(factory)
        return factory

    return make


def captioned(factory):
    ingest_shard(factory, SHARD)
    caption_shard(factory, "colours", SHARD, ColourBackend)
    return factory


def rows_of(training_set):
    return [row for file in training_files(training_set) for row in read_table(file).to_pylist()]


def test_they_are_pairs_unless_the_yaml_requires_captions(make_mixed):
    artifact = ingest_shard(factory := make_mixed(), SHARD)
    pairs = {row["image"]: row for row in read_pairs(artifact).to_pylist()}
    assert [pairs[row["image"]]["raw_caption"] for row in LACKING] == ["", "", ""]
    assert pairs["lone.png"]["pair_id"] == pair_identity(pairs["lone.png"]["image_id"], "")
    assert (artifact.manifest.rows.rows_out, artifact.manifest.summary["uncaptioned"]) == (6, 3)
    assert all(outcome.passed for outcome in check_raw_pairs(Graph(factory), artifact))


def test_their_lack_is_a_failure_where_captions_are_required(make_mixed):
    artifact = ingest_shard(make_mixed(ingest={"raw_captions": "required"}), SHARD)
    assert artifact.manifest.rows.reasons == {"caption_not_text": 2, "empty_caption": 1}
    assert len(read_pairs(artifact)) == 3


def test_a_blank_caption_beside_a_real_one_of_its_image_stays_a_failure(write_source, make_factory):
    factory = make_factory(
        write_source(2, [{"image": "0001.png", "caption": ""}, {"image": "0000.png", "caption": ""}])
    )
    create_new_shards(factory)
    artifact = ingest_shard(factory, SHARD)
    assert artifact.manifest.rows.reasons == {"empty_caption": 2}
    assert artifact.manifest.summary.get("uncaptioned") is None


def test_an_image_that_lacks_a_caption_twice_is_one_pair(write_source, make_factory):
    source = write_source(1, [{"image": "lone.png"}, {"image": "copy.png"}])
    for name in ("lone.png", "copy.png"):
        picture(9).save(source / "images" / name)
    factory = make_factory(source)
    create_new_shards(factory)
    artifact = ingest_shard(factory, SHARD)
    [failure] = read_table(artifact.file("failures.parquet")).to_pylist()
    assert failure["reason"] == "duplicate_pair"
    assert failure["detail"] == "row 3: the same image without a caption already stands in row 2."


def test_they_are_captioned_and_merged_without_a_raw_caption(make_mixed):
    factory = captioned(make_mixed())
    recipe = factory.config.recipe("sheared")
    shear_recipe(factory, recipe)
    training_set = merge_training_set(factory, recipe)
    rows = {row["image"]: row for row in rows_of(training_set)}
    assert len(rows) == 6
    assert rows["0001.png"]["sources"] == ["raw", "colours"]
    assert rows["lone.png"]["captions"] == [f"A {colour_name(10)} square."]
    assert rows["lone.png"]["weights"] == [1.0]
    assert training_set.manifest.rows.rows_in == 9
    assert all(outcome.passed for outcome in check_training_set(Graph(factory), training_set))
    shear_recipe(factory, factory.config.recipe("raw-only"))
    raw_only = merge_training_set(factory, factory.config.recipe("raw-only"))
    assert sorted(row["image"] for row in rows_of(raw_only)) == ["0000.png", "0001.png", "0002.png"]


def test_a_prompt_that_quotes_the_raw_caption_fails_on_them_without_asking(make_mixed):
    quoting = {"model": "demo:tiny-llava", "prompt": 'Improve "{raw_caption}" of <image>:'}
    factory = make_mixed(captioners={"colours": quoting})
    ingest_shard(factory, SHARD)
    graph = Graph(factory)
    assert images_to_caption(graph, [("colours", SHARD)]) == (3, True)
    backend = ColourBackend()
    captions = caption_shard(factory, "colours", SHARD, lambda: backend)
    assert sum(map(len, backend.calls)) == 3
    assert {row["reason"] for row in read_failures(captions)} == {"no_raw_caption"}
    assert read_failures(captions)[0]["detail"].startswith("lone.png: it came without a raw caption, and the prompt of")
    assert len(read_captions(captions)) == 3
    assert all(outcome.passed for outcome in check_captions(Graph(factory), captions)[1:])


def test_a_length_to_match_is_the_image_s_own_or_else_the_rule_s(make_mixed):
    factory = captioned(make_mixed(shears={"first": [{"match_raw": 1, "otherwise": 4}]}))
    recipe = factory.config.recipe("sheared")
    shear_recipe(factory, recipe)
    rows = {row["image"]: row for row in rows_of(merge_training_set(factory, recipe))}
    assert rows["0001.png"]["captions"][1] == f"A {colour_name(1)}"
    assert rows["lone.png"]["captions"] == [f"A {colour_name(10)} square. It"]


def test_the_length_of_raw_captions_in_general_leaves_them_out(make_mixed):
    factory = captioned(make_mixed(shears={"first": [{"match_corpus": "mean"}]}))
    assert dict(raw_lengths(factory)) == {2: 3}
    sheared = shear_recipe(factory, factory.config.recipe("sheared"))
    assert sheared.manifest.summary["corpus_words"] == {"mean": 2}


@pytest.mark.parametrize("otherwise", [None, 3])
def test_without_any_raw_caption_a_length_must_be_given(write_source, make_factory, otherwise):
    source = write_source(0, [{"image": "lone.png"}])
    picture(1).save(source / "images" / "lone.png")
    step = {"match_corpus": "mean", **({"otherwise": otherwise} if otherwise else {})}
    factory = make_factory(source, shears={"first": [step]})
    create_new_shards(factory)
    captioned(factory)
    recipe = factory.config.recipe("sheared")
    if otherwise is None:
        with pytest.raises(ConfigError, match=r"match_corpus has no raw caption .* otherwise: 12"):
            shear_recipe(factory, recipe)
    else:
        shear_recipe(factory, recipe)
        [row] = rows_of(merge_training_set(factory, recipe))
        assert row["captions"] == [f"A {colour_name(1)} square."]


def test_they_count_as_no_raw_caption(make_mixed):
    factory = captioned(make_mixed())
    graph = Graph(factory)
    assert raw_captions_in(graph, SHARD) == 3
    [plain, *_], lone = shard_gallery(factory, SHARD, ["colours"])[:1], shard_gallery(factory, SHARD, ["colours"])[3]
    assert [source for source, _ in plain.captions] == ["raw", "colours"]
    assert [source for source, _ in lone.captions] == ["colours"]
    assert statistics_of_shards(factory, "colours", [SHARD]).words_shared_with_raw == 0.0


def test_a_store_whose_shards_named_them_failures_gets_them_in_a_new_shard(write_source, make_factory):
    """As stores have it that were made before: the row was bad, and named no path."""
    factory = make_factory(source := write_source(2, [{"image": "lone.png"}]))
    picture(9).save(source / "images" / "lone.png")
    rows = [replace(row, path=None) if row.reason else row for row in factory.config.pairs.rows()]
    write_shard(factory, SHARD, rows, {"reader": factory.config.pairs.fingerprinted()})
    old = ingest_shard(factory, SHARD)
    assert old.manifest.rows.reasons == {"caption_not_text": 1}
    assert create_new_shards(factory) == ["shard-00001"]
    assert [row["image"] for row in read_pairs(ingest_shard(factory, "shard-00001")).to_pylist()] == ["lone.png"]
    assert create_new_shards(factory) == []
    assert Graph(factory).find(Ref("raw_pairs", (SHARD,))).manifest == old.manifest
