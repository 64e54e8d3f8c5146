"""A factory that is moved or copied, as a whole or its store or its pictures alone, is the same one: nothing is new."""

import copy
import json
import shutil
import tarfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from made_once import MadeOnce
from small_factory import picture, settings_of, source_in
from whole_factory import edited, factory_of, make_data, reader, settings_in, write_settings

from caploom.config.factory import Factory
from caploom.config.factory_config import parse_config
from caploom.exports.export import export_training_set
from caploom.images.location import read_location
from caploom.questions.cost.plan_cost import plan_cost
from caploom.questions.gallery import thumbnail_uri
from caploom.questions.gallery_rows import shard_gallery, training_gallery
from caploom.questions.status.factory_status import factory_status
from caploom.report.make import make_report
from caploom.stages.captions import shard_images
from caploom.stages.checkpoint import finetune_recipe, train_recipe
from caploom.stages.evaluation_sets import evaluation_set
from caploom.stages.graph import Graph
from caploom.stages.moves import moves_of
from caploom.stages.raw_pairs import ingest_shard
from caploom.stages.retrieval_metrics import measure_recipe
from caploom.stages.shards import create_new_shards, shard_names
from caploom.stages.sheared import shear_recipe
from caploom.stages.stage import Ref
from caploom.stages.training_set import merge_training_set
from caploom.storage.records import image_identity
from caploom.storage.tables import read_table
from caploom.training.launch import train_here


def _complete(folder: Path) -> dict[str, Any]:
    """The YAML of a factory with every kind of set: pairs, evaluation sets with captions and classes, a target set."""
    settings = settings_in(folder)
    settings["evaluation_sets"]["classes"] = {"reader": "image_folders", "root": str(folder / "classes")}
    settings["target_sets"] = {"more": reader(folder, "more-pairs")}
    settings["recipes"]["one"]["finetune"] = {"target_set": "more", "trainer": "small"}
    settings["recipes"]["both"]["evaluation_sets"] = ["held-out"]
    settings["recipes"]["raw-only"]["evaluation_sets"] = ["held-out"]
    return settings


def _make_complete(folder: Path) -> None:
    write_settings(folder)
    for name, number in (("cat", 40), ("dog", 41)):
        (folder / "classes" / name).mkdir(parents=True)
        picture(number).save(folder / "classes" / name / f"{number}.png")
    _run(factory_of(_complete(folder)))


def _make_gone(folder: Path) -> None:
    """The factory, made in a folder that is not there any more."""
    (folder / "first").mkdir()
    _make_complete(folder / "first")
    (folder / "first").rename(folder / "second")


@pytest.fixture
def complete(made_once: MadeOnce, tmp_path: Path) -> Path:
    """The folder of a factory that has run to the end somewhere else, and has moved here as a whole."""
    shutil.copytree(made_once("gone", _make_gone) / "second", tmp_path / "moved")
    return tmp_path / "moved"


def _addresses(factory: Factory) -> list[str]:
    return list(factory.store.addresses())


def _run(factory: Factory) -> None:
    """What a run of everything does."""
    make_data(factory)
    for recipe in factory.config.expanded_recipes():
        shear_recipe(factory, recipe)
        merge_training_set(factory, recipe)
        train_recipe(factory, recipe, launch=train_here)
        if recipe.finetune is not None:
            finetune_recipe(factory, recipe, launch=train_here)
        measure_recipe(factory, recipe)
    make_report(factory)


def assert_nothing_is_new(settings: dict[str, Any]) -> Factory:
    before = _addresses(factory_of(settings))
    status = factory_status(factory_of(settings))
    assert [(slot.asset, slot.partition, slot.causes) for slot in status.slots if slot.state != "current"] == []
    plan = plan_cost(factory_of(settings))
    assert [item for item in plan.items if item.to_do] == []
    assert _addresses(factory_of(settings)) == before
    _run(factory_of(settings))
    assert _addresses(factory_of(settings)) == before
    return factory_of(settings)


def assert_images_are_read(factory: Factory, out: Path) -> None:
    graph = Graph(factory)
    shown = [row.path for row in shard_gallery(graph, "shard-00000", [])]
    training_set = graph.require(Ref("training_set", ("one",)))
    moves = moves_of(graph)
    shown += [row.path for row in training_gallery(training_set, moves=moves)]
    assert shown
    assert all(thumbnail_uri(path) for path in shown)
    exported = export_training_set(training_set, "webdataset", out, moves=moves)
    assert exported.rows.rows_failed == 0
    for name in factory.config.evaluation_sets:
        artifact = evaluation_set(graph, name)
        (table,) = (file for file in artifact.manifest.files if file in ("pairs.parquet", "images.parquet"))
        paths = moves.of_table(read_table(artifact.file(table)))["path"].to_pylist()
        assert all(Path(path).is_file() for path in paths)


def assert_a_new_recipe_and_captioner_can_be_made(settings: dict[str, Any]) -> None:
    """Captions, training and measurements of images of old tables."""
    captioner = {**settings["captioners"]["first"], "prompt": "Tell me at once what <image> shows:"}
    settings = edited(settings, "captioners", "third", value=captioner)
    settings = edited(settings, "recipes", "new", value={"captioners": ["third"], "shear": "sentence"})
    settings = edited(settings, "trainers", "small", value={**settings["trainers"]["small"], "steps": 2})
    factory = factory_of(settings)
    _run(factory)
    graph = Graph(factory)
    for shard in graph.shards:
        assert graph.require(Ref("captions", ("third", shard))).manifest.rows.rows_failed == 0
    assert graph.require(Ref("checkpoint", ("new",))).manifest.summary["unusable_rows"] == {}
    assert graph.require(Ref("retrieval_metrics", ("new",)))


def _append_pictures(folder: Path, name: str, numbers: range) -> None:
    file = folder / f"{name}.json"
    rows = json.loads(file.read_text())
    for number in numbers:
        picture(number).save(folder / name / f"{number}.png")
        rows.append({"image": f"{number}.png", "caption": f"one more photo {number}"})
    file.write_text(json.dumps(rows))


def test_a_factory_that_moved_as_a_whole_makes_nothing_again(complete, tmp_path):
    settings = _complete(complete)
    factory = assert_nothing_is_new(settings)
    assert_images_are_read(factory, tmp_path / "exported")
    assert_a_new_recipe_and_captioner_can_be_made(settings)


def test_pictures_that_move_on_are_followed_and_so_is_a_store_that_moves_alone(complete, tmp_path):
    _run(factory_of(_complete(complete)))  # which notes the first move
    (complete / "store").rename(tmp_path / "store")
    elsewhere = tmp_path / "other-disk"
    elsewhere.mkdir()
    for name in ("pairs", "held-out", "more-pairs", "classes"):
        (complete / name).rename(elsewhere / name)
    settings = edited(_complete(complete), "store", value=str(tmp_path / "store"))
    for name, *path in (
        ("pairs", "pairs"),
        ("held-out", "evaluation_sets", "held-out"),
        ("classes", "evaluation_sets", "classes"),
        ("more-pairs", "target_sets", "more"),
    ):
        settings = edited(settings, *path, "root", value=str(elsewhere / name))
    factory = assert_nothing_is_new(settings)
    assert_images_are_read(factory, tmp_path / "exported")


def test_after_a_move_new_rows_are_a_shard_of_their_own_and_a_changed_set_is_another(complete):
    _append_pictures(complete, "pairs", range(50, 53))
    settings = _complete(complete)
    assert factory_status(factory_of(settings)).is_current  # nothing is cut yet
    to_do = next(item for item in plan_cost(factory_of(settings)).items if item.to_do)
    assert (to_do.stage, to_do.units) == ("raw_pairs", 3)
    before = {shard: Graph(factory_of(settings)).require(Ref("shards", (shard,))) for shard in _shards(settings)}
    factory = factory_of(settings)
    (new,) = create_new_shards(factory)
    assert new == f"shard-{len(before):05d}"
    listing = Graph(factory).require(Ref("shards", (new,)))
    assert listing.manifest.address.split("/")[1] in {each.manifest.address.split("/")[1] for each in before.values()}
    assert ingest_shard(factory, new).manifest.rows.rows_failed == 0
    assert create_new_shards(factory_of(settings)) == []
    finished = Graph(factory).require(Ref("evaluation_pairs", ("held-out",)))
    _append_pictures(complete, "held-out", range(60, 61))
    changed = evaluation_set(factory_of(settings), "held-out")
    assert changed.manifest.address != finished.manifest.address
    paths = moves_of(factory_of(settings)).of_table(read_table(changed.file("pairs.parquet")))["path"].to_pylist()
    assert all(Path(path).is_file() for path in paths)


def _shards(settings: dict[str, Any]) -> list[str]:
    return shard_names(factory_of(settings))


def test_only_a_run_writes_down_that_a_source_has_moved(complete):
    settings = _complete(complete)
    factory_status(factory_of(settings))
    plan_cost(factory_of(settings))
    assert list((complete / "store").rglob(".moved.json")) == []
    assert create_new_shards(factory_of(settings)) == []
    assert len(list((complete / "store").rglob(".moved.json"))) == 1


def _ingested(settings: dict[str, Any]) -> Factory:
    factory = factory_of(settings)
    create_new_shards(factory)
    for shard in shard_names(factory):
        ingest_shard(factory, shard)
    return factory


def _source_settings(folder: Path, store: Path) -> dict[str, Any]:
    return settings_of(folder, store=str(store))


def test_a_copy_beside_the_original_is_the_same_source(tmp_path):
    source = source_in(tmp_path / "one", 4)
    _ingested(_source_settings(source, tmp_path / "store"))
    shutil.copytree(source, tmp_path / "two")
    copied = _source_settings(tmp_path / "two", tmp_path / "store")
    assert _shards(copied) == ["shard-00000"]
    assert create_new_shards(factory_of(copied)) == []
    shutil.rmtree(source)
    graph = Graph(factory_of(copied))
    assert all(thumbnail_uri(row.path) for row in shard_gallery(graph, "shard-00000", []))


def test_a_part_of_a_source_or_one_with_more_rows_is_another_one_beside_it(tmp_path):
    _ingested(_source_settings(source_in(tmp_path / "one", 4), tmp_path / "store"))
    for name, count in (("part", 3), ("more", 5)):
        other = _source_settings(source_in(tmp_path / name, count), tmp_path / "store")
        assert _shards(other) == []
        assert create_new_shards(factory_of(other)) == ["shard-00000"]


def test_absolute_paths_in_the_captions_are_rewritten_to_the_new_place(tmp_path):
    source = source_in(tmp_path / "one", 4)
    captions = source / "captions.json"
    images = source / "images"
    captions.write_text(captions.read_text().replace('"image": "', f'"image": "{images}/'))
    settings = settings_of(source, evaluation_sets={})
    before = _addresses(_ingested(settings))
    images.rename(tmp_path / "two")
    moved = edited(settings, "pairs", "root", value=str(tmp_path / "two"))
    moved = edited(moved, "pairs", "rewrite", value=[{"from": f"{images}/", "to": ""}])
    assert _addresses(_ingested(moved)) == before


def test_a_rule_that_leads_to_other_pictures_makes_another_source_and_another_set(tmp_path):
    source = source_in(tmp_path / "one", 4)
    factory = _ingested(_source_settings(source, tmp_path / "store"))
    finished = evaluation_set(factory, "same")
    (source / "images" / "small").mkdir()
    for number in range(4):
        picture(number + 90).save(source / "images" / "small" / f"{number:04d}.png")
    rule = [{"from": "", "to": "small/"}]
    other = edited(_source_settings(source, tmp_path / "store"), "pairs", "rewrite", value=rule)
    other = edited(other, "evaluation_sets", "same", "rewrite", value=rule)
    assert _shards(other) == []
    assert evaluation_set(factory_of(other), "same").manifest.address != finished.manifest.address


def test_other_pictures_of_the_same_names_and_captions_are_another_source_and_another_set(tmp_path):
    source = source_in(tmp_path / "one", 4)
    factory = _ingested(_source_settings(source, tmp_path / "store"))
    finished = evaluation_set(factory, "same")
    source.rename(tmp_path / "two")
    for number in range(4):
        picture(number + 90).save(tmp_path / "two" / "images" / f"{number:04d}.png")
    other = _source_settings(tmp_path / "two", tmp_path / "store")
    assert _shards(other) == []
    assert evaluation_set(factory_of(other), "same").manifest.address != finished.manifest.address


def _image_folder(folder: Path) -> dict[str, Any]:
    return {"reader": "image_folder", "root": str(folder / "images")}


def _tars(folder: Path) -> dict[str, Any]:
    with tarfile.open(folder / "some.tar", "w") as tar:
        for number in range(4):
            tar.add(folder / "images" / f"{number:04d}.png", f"{number:04d}.png")
            tar.add(folder / "images" / f"{number:04d}.txt", f"{number:04d}.txt")
    return {"reader": "webdataset", "tars": str(folder / "*.tar")}


def _parquet(folder: Path) -> dict[str, Any]:
    rows = [
        {"image": (folder / "images" / f"{number:04d}.png").read_bytes(), "caption": f"photo {number}"}
        for number in range(4)
    ]
    pq.write_table(pa.Table.from_pylist(rows), folder / "some.parquet")
    return {"reader": "parquet", "files": str(folder / "some.parquet")}


@pytest.mark.parametrize("write", [_image_folder, _tars, _parquet])
def test_every_kind_of_source_is_followed_and_copies_in_the_store_move_with_it(tmp_path, write):
    source = source_in(tmp_path / "one" / "source", 4)
    for number in range(4):
        (source / "images" / f"{number:04d}.txt").write_text(f"photo {number}")
    settings = settings_of(source, pairs=write(source))
    before = _addresses(_ingested(settings))
    (tmp_path / "one").rename(tmp_path / "two")
    moved = json.loads(json.dumps(settings).replace(str(tmp_path / "one"), str(tmp_path / "two")))
    assert _addresses(_ingested(moved)) == before
    images = shard_images(factory_of(moved), "shard-00000")
    assert len(images) == 4
    assert all(image_identity(read_location(image.path)) == image.image_id for image in images)


def test_drawn_pictures_are_followed(tmp_path):
    drawn = {"reader": "picture_book", "folder": "training", "scenes": 3}
    evaluated = {"reader": "picture_book", "folder": "evaluation", "scenes": 3, "split": "evaluation"}
    settings = settings_of(tmp_path, pairs=drawn, evaluation_sets={"scenes": evaluated}, store="store")

    def factory_in(folder: Path) -> Factory:
        return Factory.from_config(parse_config(copy.deepcopy(settings), base=folder, source="test"))

    first = factory_in(tmp_path / "one")
    create_new_shards(first)
    ingest_shard(first, "shard-00000")
    evaluation_set(first, "scenes")
    before = _addresses(first)
    (tmp_path / "one").rename(tmp_path / "two")
    second = factory_in(tmp_path / "two")
    assert create_new_shards(second) == []
    ingest_shard(second, "shard-00000")
    artifact = evaluation_set(second, "scenes")
    assert _addresses(second) == before
    images = shard_images(second, "shard-00000")
    paths = moves_of(second).of_table(read_table(artifact.file("pairs.parquet")))["path"].to_pylist()
    assert all(Path(path).is_file() for path in [*(image.path for image in images), *paths])
