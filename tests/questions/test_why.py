import json
from collections import Counter

import pytest
from asked_factory import captioned, merged, write_factory

from caploom.errors import ConfigError
from caploom.questions.why.text import why_markdown, why_text
from caploom.questions.why.why_metric import why_metric
from caploom.storage.tables import read_table
from caploom.training_set.write import training_files


def measurement(factory, recipe):
    (artifact,) = factory.store.list("retrieval_metrics", recipe)
    return artifact.manifest.summary["measurements"][0]


@pytest.mark.parametrize(
    ("metric", "direction", "figure"),
    [
        ("r1_i2t", "image_to_text", "recall@1"),
        ("r5_t2i", "text_to_image", "recall@5"),
        ("recall@10_i2t", "image_to_text", "recall@10"),
        ("text_to_image.recall@1", "text_to_image", "recall@1"),
        ("median_rank i2t", "image_to_text", "median_rank"),
        ("mean_r1", "", "mean_recall@1"),
        ("rsum", "", "rsum"),
    ],
)
def test_a_metric_is_what_the_manifest_says(asked, metric, direction, figure):
    (found,) = why_metric(asked.store, "sheared", metric).figures
    held = measurement(asked, "sheared")
    held = held[direction] if direction else held
    assert found.value == held[figure]
    assert found.interval == (tuple(held["interval@1"]) if figure == "recall@1" else found.interval)
    assert [rival.recipe for rival in found.rivals] == ["raw-only"]


def test_the_better_recipe_comes_first(asked):
    (better,) = why_metric(asked.store, "sheared", "rsum").figures
    (worse,) = why_metric(asked.store, "raw-only", "rsum").figures
    assert (better.place, worse.place) == (1, 2)
    (rank,) = why_metric(asked.store, "sheared", "mean_rank_i2t").figures
    assert rank.low_is_good and rank.place == 1


def test_the_shares_are_those_of_the_rows(asked):
    training_set = why_metric(asked.store, "sheared", "rsum").training_set
    (artifact,) = asked.store.list("training_set", "sheared")
    rows = [row for file in training_files(artifact) for row in read_table(file).to_pylist()]
    drawn, captions, images = Counter(), Counter(), Counter()
    for row in rows:
        captions.update(row["sources"])
        images.update(set(row["sources"]))
        for source, weight in zip(row["sources"], row["weights"], strict=True):
            drawn[source] += weight / len(rows)
    for source in training_set.sources:
        assert source.samples_share == pytest.approx(drawn[source.source], abs=1e-5)
        assert source.captions == captions[source.source]
        assert source.images_lacking == len(rows) - images[source.source]
    assert training_set.dropped == artifact.manifest.rows.reasons
    assert sum(training_set.dropped.values()) == training_set.captions_in - training_set.captions > 0
    assert training_set.rows[0]["captions"][0]["caption"] == rows[0]["captions"][0]


@pytest.mark.parametrize("recipe", ["sheared", "raw-only"])
def test_an_older_summary_without_shares_is_counted(recipe, own_asked):
    factory = own_asked
    training_set = merged(factory, recipe)
    known = why_metric(factory.store, recipe, "rsum").training_set.sources
    manifest = training_set.folder / "manifest.json"
    older = json.loads(manifest.read_text())
    del older["summary"]["sample_share_by_source"], older["summary"]["images_by_source"]
    manifest.write_text(json.dumps(older), encoding="utf-8")
    assert why_metric(factory.store, recipe, "rsum").training_set.sources == known


def test_the_text_goes_from_the_number_to_the_captions(asked):
    text = why_text(why_metric(asked.store, "sheared", "r1_i2t"))
    for part in ("95 % interval", "chance", "place 1 of 2", "2 steps, 8 samples", "final loss 1.25", "max_repeats"):
        assert part in text
    assert text.index("checkpoint/sheared") < text.index("training_set/sheared") < text.index("photo")
    markdown = why_markdown(why_metric(asked.store, "sheared", "r1_i2t"))
    assert "<script>" not in markdown and "\x1b" not in text


def test_a_newer_version_in_between_is_told(own_asked, tmp_path):
    factory = own_asked
    assert why_metric(factory.store, "sheared", "rsum").newer == ()
    (tmp_path / "again").mkdir()
    again = captioned(
        write_factory(tmp_path / "again", store=str(factory.store.root), shears={"first": [{"max_words": 2}]})
    )
    _later(merged(again, "sheared"))
    newer = why_metric(factory.store, "sheared", "rsum").newer
    assert any(line.startswith("training_set [sheared]") for line in newer)


def test_what_is_gone_on_the_way_is_named(own_asked):
    factory = own_asked
    (training_set,) = factory.store.list("training_set", "sheared")
    (training_set.folder / "manifest.json").unlink()
    why = why_metric(factory.store, "sheared", "rsum")
    assert why.training_set is None
    assert training_set.manifest.address in why.missing[0]
    assert "missing" in why_text(why)


@pytest.mark.parametrize(
    ("recipe", "metric", "name", "said"),
    [
        ("shaered", "rsum", None, 'did you mean "sheared"'),
        ("sheared", "r1_i2", None, 'did you mean "r1_i2t"'),
        ("sheared", "rsum", "held-in", 'did you mean "held-out"'),
    ],
)
def test_a_wrong_name_is_answered_with_the_nearest(asked, recipe, metric, name, said):
    with pytest.raises(ConfigError, match=said):
        why_metric(asked.store, recipe, metric, evaluation_set=name)


def _later(artifact):
    manifest = artifact.folder / "manifest.json"
    later = json.loads(manifest.read_text()) | {"started": "2999-01-01T00:00:00+00:00"}
    manifest.write_text(json.dumps(later), encoding="utf-8")
