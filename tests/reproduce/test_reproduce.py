import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from reproducible import CAPTIONER, Made, factory_of, reader, rewritten, snapshot

from caploom.captioning.backend import load_backend
from caploom.config.factory import Factory
from caploom.errors import StoreError
from caploom.reproduce.rebuild import NotReproducibleError
from caploom.reproduce.reproduce import Reproduction, reproduce
from caploom.reproduce.verdict import verdict_text
from caploom.stages.captions import caption_shard
from caploom.stages.checkpoint import train_recipe
from caploom.stages.graph import Graph
from caploom.stages.raw_pairs import ingest_shard
from caploom.stages.registry import STAGES
from caploom.stages.retry_failures import retry_failures
from caploom.stages.shards import create_new_shards
from caploom.stages.sheared import shear_recipe
from caploom.stages.stage import Ref
from caploom.stages.training_set import merge_training_set
from caploom.storage.store import Artifact
from caploom.training.launch import train_here

MEASURED = "identical but for measured times"


@pytest.fixture
def again(tmp_path: Path) -> Any:
    """Makes an artifact again in a folder of its own."""
    number = 0

    def run(factory: Factory, artifact: Artifact) -> Reproduction:
        nonlocal number
        number += 1
        return reproduce(factory, artifact, tmp_path / f"again-{number}", launch=train_here)

    return run


def test_every_kind_of_artifact_comes_out_the_same_and_the_store_is_left_as_it_was(made: Made, again: Any) -> None:
    before = snapshot(made.folder)
    outcomes: dict[str, str] = {}
    for artifact in made.factory.store.list():
        result = again(made.factory, artifact)
        assert result.is_same, verdict_text(result)
        assert not result.causes
        outcomes[artifact.manifest.kind] = result.outcome
    assert outcomes == {kind: MEASURED if kind == "captions" else "byte-identical" for kind in STAGES}
    assert snapshot(made.folder) == before


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("shards", ()),
        ("raw_pairs", ()),
        ("captions", ()),
        ("training_set", ("sheared",)),
        ("checkpoint", ("sheared",)),
        ("finetuned_checkpoint", ("sheared",)),
        ("retrieval_metrics", ("sheared",)),
    ],
)
def test_a_factory_in_another_place_reproduces_what_was_made_in_the_first(made, again, tmp_path, kind, name):
    shutil.copytree(made.folder, tmp_path / "elsewhere")
    moved = factory_of(tmp_path / "elsewhere", made.settings)
    result = again(moved, moved.store.list(kind, *name)[0])
    assert result.is_same, verdict_text(result)


def test_the_present_yaml_need_not_be_the_one_of_then(made: Made, again: Any) -> None:
    settings = json.loads(json.dumps(made.settings))
    settings["name"] = "another"
    settings["shard_size"] = 5
    settings["ingest"] = {"min_side": 1000}
    settings["pairs"]["rewrite"] = [{"from": "", "to": "elsewhere/"}]  # a key that settings of then do not name
    settings["seeds"] = [7]
    settings["captioners"][CAPTIONER]["prompt"] = "What is <image>?"
    settings["captioners"][CAPTIONER]["batch_size"] = 2
    settings["shears"] = {"short": [{"max_words": 2}]}
    settings["trainers"]["small"]["steps"] = 9
    settings["recipes"]["sheared"] = {**settings["recipes"]["sheared"], "mix": "concatenate", "filters": []}
    settings["evaluation_sets"]["scenes"]["scenes"] = 12
    changed = factory_of(made.folder, settings)
    before = snapshot(made.folder / "scenes")
    for kind in ("shards", "captions", "sheared", "sheared_captions", "evaluation_pairs"):
        for artifact in made.factory.store.list(kind):
            result = again(changed, artifact)
            paths = kind == "evaluation_pairs" and artifact.manifest.address.startswith("evaluation_pairs/scenes")
            # Scenes that the YAML's folder does not have (any more) are drawn elsewhere, and tables name their paths.
            assert result.is_same or paths, verdict_text(result)
    for kind in ("training_set", "checkpoint", "retrieval_metrics"):
        for name in ("raw-only", *(["sheared"] if kind == "training_set" else [])):
            result = again(changed, made.artifact(kind, name))
            assert result.is_same, verdict_text(result)
    assert snapshot(made.folder / "scenes") == before


def test_steps_that_declare_nothing_special_are_made_again(
    copied: Made, again: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(STAGES, "toy", "toy_steps:TOY")
    monkeypatch.setitem(STAGES, "toys", "toy_steps:TOYS")
    settings = {**copied.settings["recipes"], "scored": {**copied.settings["recipes"]["scored"], "evaluation_sets": []}}
    graph = Graph(copied.with_settings(recipes=settings))
    for ref in (Ref("toy", ("raw-only",)), Ref("toy", ("sheared",)), Ref("toys")):
        made = graph.make(ref)
        result = again(graph.factory, made)
        assert result.outcome == "byte-identical", verdict_text(result)
    kinds = [line.split()[0] for line in made.file("inputs.txt").read_text().splitlines()]
    assert kinds == ["toy", "toy", "raw_pairs", "raw_pairs"]
    changed = again(copied.with_settings(recipes={"raw-only": {"captioners": [], "trainer": "second"}}), made)
    assert changed.outcome == "byte-identical", verdict_text(changed)


def test_images_that_were_left_out_are_left_out_again(copied: Made, again: Any, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (5, 64, 64, 3), np.uint8)  # no two pictures are much alike
    rows = [{"image": f"{number}.png", "caption": f"noise number {number}"} for number in range(5)]
    for row, pixels in zip(rows, noise, strict=True):
        Image.fromarray(pixels).save(tmp_path / row["image"])
    for name, some in (("pairs", rows), ("leaky", rows[:1])):
        (tmp_path / f"{name}.json").write_text(json.dumps(some))
    readers = {
        name: {**reader(name), "root": str(tmp_path), "captions": str(tmp_path / f"{name}.json")}
        for name in ("pairs", "leaky")
    }
    factory = copied.with_settings(
        pairs=readers["pairs"],
        duplicates={"leakage": "exclude"},
        evaluation_sets={"leaky": readers["leaky"]},
        recipes={"raw-only": {"captioners": [], "trainer": "small", "evaluation_sets": ["leaky"]}},
    )
    for shard in create_new_shards(factory):
        ingest_shard(factory, shard)
    recipe = factory.config.recipe("raw-only")
    shear_recipe(factory, recipe)
    training_set = merge_training_set(factory, recipe)
    assert training_set.manifest.configuration["excluded_images"]["count"] == 1
    for artifact in (training_set, train_recipe(factory, recipe, launch=train_here)):
        result = again(factory, artifact)
        assert result.outcome == "byte-identical", verdict_text(result)


def test_a_changed_image_is_named(made: Made, again: Any) -> None:
    image = made.folder / "pairs" / "0.png"
    whole = image.read_bytes()
    image.write_bytes(whole + b"one more byte")
    try:
        pairs = again(made.factory, made.artifact("raw_pairs"))
        captions = again(made.factory, made.artifact("captions"))
    finally:
        image.write_bytes(whole)
    for result in (pairs, captions):
        assert result.outcome == "different"
        (cause,) = result.causes
        assert "1 of its images are not what they were" in cause
        assert f"{image} has other bytes than then" in cause
    (table,) = [each for each in pairs.files if each.name == "pairs.parquet"]
    assert "1 of 8 rows differ; for example pair_id of row 0" in table.detail


def test_an_image_that_is_gone_is_named(made: Made, again: Any) -> None:
    image = made.folder / "pairs" / "1.png"
    whole = image.read_bytes()
    image.unlink()
    try:
        result = again(made.factory, made.artifact("raw_pairs"))
    finally:
        image.write_bytes(whole)
    assert result.outcome == "different"
    assert "cannot be read any more (missing_image)" in result.causes[0]
    assert "8 rows then, 7 now" in verdict_text(result)


def test_a_deleted_input_is_named(copied: Made, again: Any) -> None:
    artifact = copied.artifact("training_set", "sheared")
    gone = copied.artifact("raw_pairs")
    shutil.rmtree(gone.folder)
    result = again(copied.factory, artifact)
    assert result.outcome == "not made"
    assert result.causes == [f"The input {gone.manifest.address} is missing."]
    assert "it could not be rebuilt" in verdict_text(result)


def test_an_input_with_other_content_is_named(copied: Made, again: Any) -> None:
    pairs = copied.artifact("raw_pairs")
    rewritten(copied.factory.store, pairs, data_version="0123456789abcdef")
    result = again(copied.factory, copied.artifact("captions", CAPTIONER))
    assert result.outcome == "not made"
    assert f"The input {pairs.manifest.address} has other content" in result.causes[0]
    assert "0123456789abcdef" in result.differences[0]


def test_an_input_whose_file_was_changed_is_named(copied: Made, again: Any) -> None:
    sheared = next(each for each in copied.factory.store.list("sheared") if "shard-00001" in each.manifest.address)
    other = copied.artifact("sheared", CAPTIONER)
    shutil.copyfile(other.file("sheared.parquet"), sheared.file("sheared.parquet"))
    wholes = copied.factory.store.list("sheared_captions")
    whole = next(each for each in wholes if sheared.as_input() in each.manifest.inputs)
    result = again(copied.factory, whole)
    assert result.outcome == "different"
    assert result.causes == [f"{sheared.manifest.address}: its file sheared.parquet was changed after it was made."]


def test_another_package_version_is_said_though_nothing_differs(copied: Made, again: Any) -> None:
    artifact = copied.artifact("sheared")
    packages = {**artifact.manifest.packages, "torch": "2.9.0"}
    edited = rewritten(copied.factory.store, artifact, packages=packages)
    result = again(copied.factory, edited)
    assert result.is_same
    assert result.causes == [f"torch: 2.9.0 then, {artifact.manifest.packages['torch']} now."]
    assert "And yet:\n  torch: 2.9.0 then" in verdict_text(result)


def test_a_canary_of_another_package_version_is_another_question(copied: Made, again: Any) -> None:
    artifact = copied.artifact("canaries")
    configuration = {**artifact.manifest.configuration, "packages": {"torch": "2.9.0", "transformers": "5.0.0"}}
    edited = rewritten(copied.factory.store, artifact, configuration=configuration)
    result = again(copied.factory, edited)
    assert result.outcome == "not made"
    assert 'The configuration\'s packages.torch was "2.9.0"' in result.differences[0]


def test_a_stage_whose_code_has_changed_is_named_and_made_all_the_same(copied: Made, again: Any) -> None:
    artifact = copied.artifact("evaluation_pairs", "held-out")
    edited = rewritten(copied.factory.store, artifact, code_version="0")
    result = again(copied.factory, edited)
    assert result.outcome == "different"
    assert all(each.sameness == "identical" for each in result.files)
    assert "code version 0 then" in result.differences[0]
    assert "The code of evaluation_pairs has changed its results since" in result.causes[0]


def test_a_damaged_original_is_told_from_one_that_does_not_come_out_the_same(copied: Made, again: Any) -> None:
    artifact = copied.artifact("training_set", "raw-only")
    rows = artifact.file("rows-00000.parquet")
    rows.write_bytes(rows.read_bytes() + b"!")
    artifact.file("training.json").unlink()
    result = again(copied.factory, artifact)
    assert result.outcome == "byte-identical"
    assert not result.is_same
    assert result.damage == [
        f"{artifact.manifest.address}: its file rows-00000.parquet was changed after it was made.",
        f"{artifact.manifest.address}: its file training.json is gone.",
    ]
    assert "The original is not what was made then" in verdict_text(result)


def test_a_manifest_edited_by_hand_is_named(copied: Made, again: Any) -> None:
    artifact = copied.artifact("training_set", "raw-only")
    path = artifact.folder / "manifest.json"
    edited = json.loads(path.read_text())
    edited["configuration"]["mix"] = {**edited["configuration"]["mix"], "sub_caption": True}
    path.write_text(json.dumps(edited))
    found = copied.factory.store.read(artifact.manifest.address)
    result = again(copied.factory, found)
    assert result.outcome == "different"
    assert f"The manifest of {artifact.manifest.address} was edited" in result.causes[0]


def test_a_captioner_whose_model_has_changed_is_named(made: Made, again: Any) -> None:
    path = made.folder / "captioner" / "training.json"
    whole = path.read_bytes()
    path.write_bytes(whole + b" ")
    try:
        result = again(made.factory, made.artifact("captions"))
    finally:
        path.write_bytes(whole)
    assert result.outcome == "not made"
    assert f"The captioner {CAPTIONER} is another one by now" in result.differences[0]
    assert str(made.folder / "captioner") in result.differences[0]


def test_an_evaluation_set_whose_source_has_changed_is_named(made: Made, again: Any) -> None:
    source = made.folder / "held-out.json"
    whole = source.read_text()
    source.write_text(whole.replace("photo 20", "photo of twenty"))
    try:
        metrics = again(made.factory, made.artifact("retrieval_metrics", "raw-only"))
        pairs = again(made.factory, made.artifact("evaluation_pairs", "held-out"))
    finally:
        source.write_text(whole)
    assert metrics.outcome == pairs.outcome == "not made"
    assert f"It was made from {made.artifact('evaluation_pairs', 'held-out').manifest.address}" in verdict_text(metrics)
    assert "The configuration's source was" in verdict_text(pairs)


def test_a_shard_of_a_source_that_has_grown_since_comes_out_the_same(made: Made, again: Any) -> None:
    source = made.folder / "pairs.json"
    whole = source.read_text()
    source.write_text(json.dumps([*json.loads(whole), {"image": "3.png", "caption": "one more"}]))
    try:
        results = [again(made.factory, each) for each in made.factory.store.list("shards")]
        source.write_text(whole.replace("photo 0", "photo of nothing"))
        changed = again(made.factory, made.factory.store.list("shards")[0])
    finally:
        source.write_text(whole)
    assert len(results) == 2
    assert all(result.is_same for result in results), [verdict_text(result) for result in results]
    assert changed.outcome == "different"
    assert "photo of nothing" in verdict_text(changed)


def test_an_unknown_kind_names_the_known_ones(copied: Made, again: Any) -> None:
    artifact = copied.artifact("sheared")
    artifact.manifest = artifact.manifest.model_copy(update={"kind": "dreams"})
    with pytest.raises(NotReproducibleError, match="the kind dreams cannot be rebuilt; known: shards, raw_pairs"):
        again(copied.factory, artifact)


def test_a_folder_that_is_in_use_is_refused(made: Made, tmp_path: Path) -> None:
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "thesis.tex").touch()
    with pytest.raises(StoreError, match="the folder is not empty"):
        reproduce(made.factory, made.artifact("shards"), tmp_path / "used")


def test_captions_whose_failures_were_redone_are_redone_alike(copied: Made, again: Any) -> None:
    # An image is lost while the shard is captioned, and there again when its failure is redone.
    settings = json.loads(json.dumps(copied.settings))
    settings["captioners"][CAPTIONER]["seed"] = 3
    factory = factory_of(copied.folder, settings)
    captioner = factory.config.captioners[CAPTIONER]
    image = copied.folder / "pairs" / "2.png"
    whole = image.read_bytes()
    image.unlink()
    try:
        first = caption_shard(factory, CAPTIONER, "shard-00000", lambda: load_backend(captioner, factory.store))
    finally:
        image.write_bytes(whole)
    retried = retry_failures(factory, CAPTIONER, "shard-00000", lambda: load_backend(captioner, factory.store))
    assert retried is not None
    assert retried.captioned == 1
    assert again(factory, retried.artifact).outcome == MEASURED
    then = again(factory, first)
    assert then.outcome == "different"
    assert "7 rows then, 8 now" in verdict_text(then)


@pytest.mark.slow
def test_a_training_is_started_with_as_many_threads_as_then(
    copied: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    artifact = copied.artifact("checkpoint", "raw-only")
    assert artifact.manifest.summary["threads"] == 1
    monkeypatch.delenv("OMP_NUM_THREADS")
    result = reproduce(copied.factory, artifact, tmp_path / "again")
    assert result.outcome == "byte-identical", verdict_text(result)
    told = json.loads((Path(result.folder) / "manifest.json").read_text())
    assert told["summary"]["threads"] == 1
    summary = {**artifact.manifest.summary, "threads": 2}
    other = reproduce(copied.factory, rewritten(copied.factory.store, artifact, summary=summary), tmp_path / "other")
    assert json.loads((Path(other.folder) / "manifest.json").read_text())["summary"]["threads"] == 2
