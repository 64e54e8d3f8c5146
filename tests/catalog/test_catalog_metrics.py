"""The catalog's measurements say what the manifests say."""

import json

import pytest
from asked_factory import IMAGES

from caploom.catalog.catalog import open_catalog
from caploom.config.factory import Factory
from caploom.storage.opening import open_store
from caploom.storage.store import Artifact, Plan


def records(store, query):
    with open_catalog(store) as catalog:
        result = catalog.execute(query)
        return [dict(zip([column[0] for column in result.description], row, strict=True)) for row in result.fetchall()]


def artifact(factory: Factory, kind: str, name: str) -> Artifact:
    return factory.store.list(kind, name)[0]


def test_a_measurement_is_a_row_with_all_that_decided_it(asked):
    rows = {row["recipe"]: row for row in records(asked.store, "select * from metrics")}
    assert set(rows) == {"raw-only", "sheared"}
    measured = artifact(asked, "retrieval_metrics", "sheared").manifest
    said = measured.summary["measurements"][0]
    row = rows["sheared"]
    for short, direction in (("i2t", "image_to_text"), ("t2i", "text_to_image")):
        for k in (1, 5, 10):
            assert row[f"r{k}_{short}"] == said[direction].get(f"recall@{k}")
    assert row["mean_r1"] == said["mean_recall@1"]
    assert row["rsum"] == said["rsum"]
    assert row["mean_rank_variance"] == said["mean_rank_variance"]
    made = {"captioners": "colours", "n_captioners": 1, "shear": "first", "mix": "uniform", "filters": "max_repeats 3"}
    measured_as = {"stage": "zero-shot", "evaluation_set": "held-out", "scoring": "cosine", "address": measured.address}
    trained = {"training_steps": 2, "samples_seen": 8, "training_seconds": 0.5, "seed": 0, "base": "sheared"}
    assert row.items() >= (made | measured_as | trained).items()
    summary = artifact(asked, "training_set", "sheared").manifest.summary
    assert row["captions_per_image"] == pytest.approx(summary["captions"] / IMAGES)
    assert rows["raw-only"].items() >= {"captioners": "", "n_captioners": 0, "shear": "none", "filters": ""}.items()


def test_single_queries_give_the_recalls(asked):
    rows = records(
        asked.store,
        "select recipe, stage, evaluation_set, direction, avg((rank = 1)::int) as recall from ranks group by all",
    )
    recalls = {(row["recipe"], row["direction"]): row["recall"] for row in rows}
    for row in records(asked.store, "select * from metrics"):
        assert recalls[row["recipe"], "image_to_text"] == pytest.approx(row["r1_i2t"])
        assert recalls[row["recipe"], "text_to_image"] == pytest.approx(row["r1_t2i"])
    assert {(row["stage"], row["evaluation_set"]) for row in rows} == {("zero-shot", "held-out")}


def test_failed_rows_are_named(asked):
    (row,) = records(asked.store, "select image, reason, artifact, is_latest from failures")
    assert row == {
        "image": "broken.png",
        "reason": "undecodable_image",
        "artifact": "raw_pairs [shard-00001]",
        "is_latest": True,
    }


def put(store, kind, name, configuration, inputs=(), summary=None):
    def build(draft):
        draft.summary = summary or {}

    plan = Plan(kind=kind, name=name, code_version="1", configuration=configuration, inputs=tuple(inputs))
    return store.make(plan, build).as_input()


def test_fine_tuning_mixes_seeds_and_older_versions(tmp_path):
    store = open_store(tmp_path / "store")
    mix = {"strategy": "raw_probability", "raw_probability": 0.25, "sub_caption": True, "source_prefix": False}
    captions = put(store, "sheared_captions", ("all",), {"captioners": ["a", "b"], "shear": "first"})
    configuration = {"captioners": ["a", "b"], "filters": [{"filter": "no_empty"}], "mix": mix}
    rows = put(store, "training_set", ("all",), configuration, [captions], {"images": 4, "captions": 10})
    done = {"steps": 10, "samples_seen": 100, "seconds": 1.5}
    first = put(store, "checkpoint", ("all-seed-7",), {"seed": 7}, [rows], done)
    target = put(store, "target_set", ("coco",), {})
    second = put(store, "finetuned_checkpoint", ("all-seed-7",), {"seed": 7}, [first, target], done | {"steps": 5})
    measured = {"kind": "retrieval", "evaluation_set": "coco", "scoring": "ITC", "mean_recall@1": 0.5}
    stages = [measured | {"stage": "zero-shot"}, measured | {"stage": "fine-tuned"}, {"kind": "classification"}]
    metrics = put(store, "retrieval_metrics", ("all-seed-7",), {}, [first, second], {"measurements": stages})
    older = put(store, "retrieval_metrics", ("all-seed-7",), {"old": 1}, [first], {"measurements": stages[:1]})
    path = store.path(older.address) / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"started": "2020-01-01T00:00:00+00:00"}))

    zero_shot, fine_tuned = records(store, "select * from metrics order by training_steps")
    same = {"recipe": "all-seed-7", "base": "all", "seed": 7, "captioners": "a, b", "n_captioners": 2, "shear": "first"}
    same |= {"mix": "raw_probability 0.25, sub_caption", "filters": "no_empty", "captions_per_image": 2.5}
    same |= {"address": metrics.address, "scoring": "ITC", "r1_i2t": None, "mean_r1": 0.5}
    trained = {"training_steps": 10, "samples_seen": 100, "training_seconds": 1.5}
    assert zero_shot.items() >= (same | trained | {"stage": "zero-shot"}).items()
    trained = {"training_steps": 15, "samples_seen": 200, "training_seconds": 3.0}
    assert fine_tuned.items() >= (same | trained | {"stage": "fine-tuned"}).items()
    history = records(store, "select address, is_latest from metrics_history order by started, stage")
    assert [(row["address"], row["is_latest"]) for row in history] == [
        (older.address, False),
        (metrics.address, True),
        (metrics.address, True),
    ]
