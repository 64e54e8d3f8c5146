import json
from collections import Counter

import pyarrow as pa
import pytest
from small_factory import ColourBackend

from caploom.errors import MissingArtifactError, TrainingError
from caploom.questions.gallery import GalleryRow
from caploom.questions.gallery_rows import training_gallery
from caploom.stages.captions import caption_shard
from caploom.stages.graph import Graph
from caploom.stages.raw_pairs import ingest_shard, ingested_shards, read_pairs
from caploom.stages.shards import create_new_shards, shard_names
from caploom.stages.sheared import check_sheared, shear_recipe, tables_of
from caploom.stages.training_set import check_training_set, merge_training_set
from caploom.storage.records import DROPPED
from caploom.storage.tables import read_table, write_table
from caploom.training_set.write import training_files


def captioned(factory):
    create_new_shards(factory)
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
    assert all(outcome.passed for outcome in check_training_set(Graph(factory), training_set))


def test_sheared_captions_are_spans_of_the_ledgers_text(write_source, make_factory):
    factory = captioned(make_factory(write_source(5)))
    recipe = factory.config.recipe("sheared")
    artifact = shear_recipe(factory, recipe)
    parts = tables_of(factory, artifact)
    for row in (row for part in parts for row in read_table(part.file("sheared.parquet")).to_pylist()):
        whole = row["caption"] + " It is said to hide a dragon."
        assert whole[row["start"] : row["end"]] == row["caption"]
        assert (row["source_words"], row["words"]) == (10, 3)
    assert all(outcome.passed for outcome in check_sheared(Graph(factory), artifact))


def test_recipes_with_the_same_captioner_and_shear_share_the_sheared_tables(write_source, make_factory):
    recipes = {name: {"captioners": "all", "shear": "first"} for name in ("one", "two")}
    factory = captioned(make_factory(write_source(5), recipes=recipes))
    one, two = (tables_of(factory, shear_recipe(factory, factory.config.recipe(name))) for name in recipes)
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


MIXES = [
    {"strategy": "uniform"},
    {"strategy": "concatenate"},
    {"strategy": "raw_probability", "raw_probability": 0.8},
]


@pytest.mark.parametrize("mix", MIXES, ids=lambda mix: mix["strategy"])
def test_the_summary_says_of_which_source_the_samples_are_and_how_many_images_have_it(mix, write_source, make_factory):
    two = [{"image": f"{number:04d}.png", "caption": f"again {number}"} for number in range(7)]
    recipes = {"sheared": {"captioners": "all", "shear": "first", "mix": mix, "filters": [{"max_repeats": 4}]}}
    factory = captioned(make_factory(write_source(18, two), recipes=recipes, shard_size=50))
    training_set = merged(factory)
    rows, summary = rows_of(training_set), training_set.manifest.summary
    drawn, images = Counter(), {}
    for row in rows:
        for source, weight in zip(row["sources"], row["weights"], strict=True):
            drawn[source] += weight
            images.setdefault(source, set()).add(row["image_id"])
    assert summary["sample_share_by_source"] == pytest.approx(
        {source: weight / len(rows) for source, weight in drawn.items()}, abs=1e-5
    )
    assert summary["images_by_source"] == {source: len(found) for source, found in images.items()}
    assert summary["images_by_source"] == {"raw": 18, "colours": 8}


def test_an_image_that_a_captioner_failed_on_keeps_its_other_captions(write_source, make_factory):
    source = write_source(6)
    factory = make_factory(source)
    create_new_shards(factory)
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
    assert all(outcome.passed for outcome in check_training_set(Graph(factory), training_set))


def test_a_shard_that_is_not_captioned_yet_is_named(write_source, make_factory):
    factory = make_factory(write_source(3))
    create_new_shards(factory)
    ingest_shard(factory, "shard-00000")
    with pytest.raises(MissingArtifactError, match=r"materialize captions/colours \[shard-00000\] first"):
        merged(factory)


def test_captions_of_another_fingerprint_are_not_merged(write_source, make_factory):
    source = write_source(3)
    merged(captioned(make_factory(source)))
    prompt = {"colours": {"model": "demo:tiny-llava", "prompt": "Describe <image> in English:", "batch_size": 4}}
    with pytest.raises(MissingArtifactError, match=r"materialize captions/colours \[shard-00000\] first"):
        merged(make_factory(source, captioners=prompt))


@pytest.mark.parametrize("mix", ["uniform", "concatenate"])
def test_the_shards_do_not_show_in_what_is_written(write_source, make_factory, tmp_path, mix):
    source = write_source(30, [{"image": "0000.png", "caption": "again"}])
    recipes = {"all": {"captioners": "all", "mix": mix}}
    files = []
    for size in (7, 100):
        settings = {"store": str(tmp_path / f"store-{size}"), "shard_size": size, "recipes": recipes}
        manifest = merged(captioned(make_factory(source, **settings)), "all").manifest
        # With one shard the image of two pairs is captioned once, and nothing is repeated.
        assert manifest.rows.reasons == ({"repeated_caption": 1} if size == 7 else {})
        files.append(manifest.files)
    assert files[0] == files[1]


def test_filters_drop_captions_with_their_reason(write_source, make_factory):
    recipes = {"long": {"captioners": "all", "shear": "first", "filters": [{"min_words": 3}]}}
    training_set = merged(captioned(make_factory(write_source(12), recipes=recipes)), "long")
    assert {tuple(row["sources"]) for row in rows_of(training_set)} == {("colours",)}
    assert training_set.manifest.rows.model_dump(exclude={"unit"}) == {
        "rows_in": 24,
        "rows_out": 12,
        "rows_failed": 12,
        "reasons": {"min_words": 12},
    }
    dropped = read_table(training_set.file("dropped-00000.parquet"))
    assert dropped.schema.names == DROPPED.names
    assert set(dropped.column("caption").to_pylist()) == {f"photo {number}" for number in range(12)}
    assert training_set.manifest.summary["captions_by_source"] == {"colours": 12}


def test_filters_that_drop_everything_are_refused_and_leave_nothing(write_source, make_factory):
    recipes = {"none": {"captioners": "all", "filters": [{"min_words": 50}]}}
    factory = captioned(make_factory(write_source(4), recipes=recipes))
    with pytest.raises(TrainingError, match=r"drop all 8 of its captions \(min_words 8\)"):
        merged(factory, "none")
    assert factory.store.list("training_set") == []


def test_a_recipe_that_is_not_the_configuration_s_is_merged_as_it_is_given(write_source, make_factory):
    recipes = {"all": {"captioners": "all", "filters": [{"min_words": 3}]}}
    factory = captioned(make_factory(write_source(4), recipes=recipes))
    recipe = factory.config.recipe("all")
    merged(factory, "all")
    strict = recipe.filters[0].model_copy(update={"min_words": 99})
    other = recipe.model_copy(update={"filters": (strict,)})
    graph = Graph(factory)
    for asked in (factory, graph):
        shear_recipe(asked, recipe)
        assert merge_training_set(asked, recipe).manifest.rows.rows_out == 4
        with pytest.raises(TrainingError, match="drop all 8 of its captions"):
            merge_training_set(asked, other)


def test_no_waiting_rows_remain_beside_the_artifact(write_source, make_factory):
    training_set = merged(captioned(make_factory(write_source(3))))
    assert sorted(path.name for path in training_set.folder.iterdir()) == [
        "manifest.json",
        "rows-00000.parquet",
        "training.json",
    ]


def test_a_source_without_a_pair_gives_a_training_set_without_rows(write_source, make_factory):
    source = write_source(2)
    for image in (source / "images").iterdir():
        image.write_bytes(b"no picture")
    training_set = merged(captioned(make_factory(source)))
    assert rows_of(training_set) == []
    assert training_gallery(training_set) == []
    assert training_set.file("training.json").read_text() == "[]\n"


def change_rows(training_set, change):
    path = training_files(training_set)[0]
    write_table(change(read_table(path)), path)


@pytest.mark.parametrize(
    ("change", "check", "figure"),
    [
        (lambda rows: rows.slice(1), "rows_accounted", ("rows_out", 22)),
        (lambda rows: pa.concat_tables([rows.slice(0, 1), rows]), "orphan_free", ("doubled", 1)),
        (
            lambda rows: rows.set_column(0, rows.schema.field(0), pa.array(["0" * 64, *rows[0].to_pylist()[1:]])),
            "orphan_free",
            ("orphans", 1),
        ),
    ],
)
def test_the_checks_see_what_is_lost_doubled_or_invented(write_source, make_factory, change, check, figure):
    factory = captioned(make_factory(write_source(12)))
    training_set = merged(factory)
    change_rows(training_set, change)
    outcome = next(each for each in check_training_set(Graph(factory), training_set) if each.name == check)
    assert not outcome.passed
    assert outcome.figures[figure[0]] == figure[1]


def test_the_gallery_shows_the_first_rows(write_source, make_factory):
    training_set = merged(captioned(make_factory(write_source(12))))
    rows = rows_of(training_set)[:3]
    assert training_gallery(training_set, 3) == [
        GalleryRow(row["path"], (("raw", row["captions"][0]), ("colours", row["captions"][1]))) for row in rows
    ]
