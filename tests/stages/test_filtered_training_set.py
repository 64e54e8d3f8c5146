"""Filters and mixes as a recipe of a whole factory has them: from the YAML to what training draws."""

import pytest
from small_factory import ColourBackend

from caploom.errors import TrainingError
from caploom.stages.captions import caption_shard
from caploom.stages.graph import Graph
from caploom.stages.raw_pairs import ingest_shard
from caploom.stages.shards import create_new_shards, shard_names
from caploom.stages.sheared import shear_recipe
from caploom.stages.training_set import check_training_set, merge_training_set
from caploom.storage.records import DROPPED
from caploom.storage.store import Store
from caploom.storage.tables import read_table
from caploom.training.clip_model import create_clip_model, save_checkpoint
from caploom.training.rows import TrainingRows
from caploom.training_set.scores import KIND as SCORES_KIND
from caploom.training_set.write import training_files


@pytest.fixture
def merge(write_source, make_factory):
    """Merges recipes of one small factory; gives the factory and the training set of each recipe."""

    def merge(extra=(), **recipes):
        written = {name: {"captioners": "all", "shear": "first", **recipe} for name, recipe in recipes.items()}
        factory = make_factory(write_source(12, extra), recipes=written)
        create_new_shards(factory)
        for shard in shard_names(factory):
            ingest_shard(factory, shard)
            caption_shard(factory, "colours", shard, ColourBackend)
        merged = []
        for name in recipes:
            shear_recipe(factory, factory.config.recipe(name))
            merged.append(merge_training_set(factory, factory.config.recipe(name)))
        return factory, *merged

    return merge


def rows_of(training_set):
    return [row for path in training_files(training_set) for row in read_table(path).to_pylist()]


def dropped_of(training_set):
    names = [name for name in training_set.manifest.files if name.startswith("dropped-")]
    tables = [read_table(training_set.file(name)) for name in names]
    assert all(table.schema == DROPPED for table in tables)
    return [(row["source"], row["caption"], row["reason"]) for table in tables for row in table.to_pylist()]


def test_dropped_captions_are_counted_and_kept_with_their_reasons(merge):
    factory, training_set = merge(
        [{"image": "0000.png", "caption": "?!"}], r={"filters": ["no_empty", {"min_words": 3}]}
    )
    dropped = dropped_of(training_set)
    assert sorted(dropped)[:2] == [("raw", "?!", "no_empty"), ("raw", "photo 0", "min_words")]
    assert len(dropped) == 13
    assert training_set.manifest.rows.reasons == {"min_words": 12, "no_empty": 1, "repeated_caption": 1}
    assert all(row["sources"] == ["colours"] and row["weights"] == [1.0] for row in rows_of(training_set))
    assert all(outcome.passed for outcome in check_training_set(Graph(factory), training_set))


def test_filters_that_drop_everything_are_refused_and_nothing_is_written(merge, tmp_path):
    with pytest.raises(TrainingError, match=r"filters of the recipe r drop all 24 of its captions \(min_words 24\)"):
        merge(r={"filters": [{"min_words": 9}]})
    assert not Store(tmp_path / "store").list("training_set")


def test_a_caption_at_too_many_images_is_dropped(merge):
    _, training_set = merge(r={"filters": [{"max_repeats": 2}]})
    assert {source for source, _, _ in dropped_of(training_set)} == {"colours"}  # three squares of each colour
    assert [row["sources"] for row in rows_of(training_set)] == [["raw"]] * 12


def test_scores_outlive_the_recipe_that_needed_them(merge, tmp_path):
    (tmp_path / "scorer").mkdir()
    save_checkpoint(create_clip_model("picture-book", seed=0), tmp_path / "scorer")
    top = {"model": "./scorer", "device": "cpu"}
    factory, half, quarter = merge(
        half={"filters": [{"keep_top": 0.5, **top}]}, quarter={"filters": [{"keep_top": 0.25, **top}]}
    )
    assert [artifact.manifest.rows.rows_out for artifact in factory.store.list(SCORES_KIND)] == [24]
    kept = [
        {(row["image_id"], source) for row in rows_of(each) for source in row["sources"]} for each in (half, quarter)
    ]
    assert [len(each) for each in kept] == [12, 6]
    assert kept[1] < kept[0]


def test_what_a_mix_does_when_it_draws_reaches_the_trainer(merge):
    _, plain, positives = merge(plain={}, positives={"mix": {"multi_positive": 2, "source_prefix": True}})
    assert rows_of(plain) == rows_of(positives)
    assert plain.data_version != positives.data_version
    assert len(TrainingRows(training_files(plain)).read([0]).draw_texts(0, seed=0, epoch=0)) == 1
    raw, other = TrainingRows(training_files(positives)).read([0]).draw_texts(0, seed=0, epoch=0)
    assert raw.startswith("raw: photo ")
    assert other.startswith("colours: A ")


def test_weights_of_sources_reach_the_rows(merge):
    _, training_set = merge(r={"mix": {"weights": {"raw": 1, "colours": 3}}})
    assert all(row["weights"] == [0.25, 0.75] for row in rows_of(training_set))
