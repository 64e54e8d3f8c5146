"""`caploom check` looks: whatever a YAML names and is not there, is said by its key."""

import json
import os
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner
from PIL import Image
from small_factory import settings_of, source_in

from caploom.cli import main
from caploom.config.factory_config import parse_config
from caploom.questions.check_sources import check_sources


def checked(folder, settings):
    return check_sources(parse_config(settings, base=folder, source="test"))


def missing(folder, **changes):
    """What is missing by key, in a factory over three pictures with some keys of its YAML changed."""
    settings = settings_of(source_in(folder / "source", 3)) | changes
    return {each.key: each.sentence for each in checked(folder, settings).missing}


def reader_of(folder, reader):
    """A reader's settings over files that are there, made in `folder`."""
    folder.mkdir()
    Image.new("RGB", (8, 8)).save(folder / "a.png")
    (folder / "a.txt").write_text("a caption")
    image, caption = {"id": 1, "file_name": "a.png"}, {"id": 1, "image_id": 1, "caption": "one"}
    content = {
        "coco": {"images": [image], "annotations": [caption]},
        "karpathy": {"images": [{"filename": "a.png", "split": "test", "sentences": [{"raw": "one"}]}]},
        "image_captions": [{"image": "a.png", "caption": "one"}],
    }
    if reader in content:
        (folder / "captions.json").write_text(json.dumps(content[reader]))
    return {"reader": reader, "root": "."} | ({"captions": "captions.json"} if reader in content else {})


@pytest.mark.parametrize("reader", ["coco", "image_captions", "image_folder", "karpathy"])
def test_a_source_is_there_until_its_images_are_not(tmp_path, reader):
    settings = settings_of(source_in(tmp_path / "source", 1)) | {"pairs": reader_of(tmp_path / "pairs", reader)}
    found = checked(tmp_path / "pairs", settings)
    assert found.missing == []
    assert ("pairs", "1 row can be used") in [(each.key, each.sentence) for each in found.there]
    (tmp_path / "pairs" / "a.png").unlink()
    (fault,) = checked(tmp_path / "pairs", settings).missing
    assert fault.key == "pairs"
    assert "a" in fault.sentence


@pytest.mark.parametrize(
    ("reader", "named"),
    [
        ({"reader": "image_captions", "root": "gone", "captions": "gone.json"}, "gone"),
        ({"reader": "image_folder", "root": "gone"}, "gone"),
        ({"reader": "webdataset", "tars": "gone/{0..3}.tar"}, "gone/0.tar"),
        ({"reader": "parquet", "files": "gone/*.parquet"}, "gone/*.parquet"),
    ],
)
def test_a_source_without_its_files_is_named(tmp_path, reader, named):
    found = missing(tmp_path, pairs=reader, target_sets={"later": reader})
    assert set(found) == {"pairs", "target_sets.later"}
    assert str(tmp_path / named) in found["pairs"]


def test_a_source_without_rows_is_not_there(tmp_path):
    (tmp_path / "empty.json").write_text("[]")
    reader = {"reader": "image_captions", "root": ".", "captions": "empty.json"}
    assert missing(tmp_path, pairs=reader)["pairs"].startswith("it has no rows")


def test_evaluation_sets_and_the_inbox_are_looked_at(tmp_path):
    sets = {
        "classes": {"reader": "image_folders", "root": "classes", "labels": "labels.csv"},
        "held-out": {"reader": "karpathy", "root": "images", "captions": "split.json"},
    }
    found = missing(tmp_path, evaluation_sets=sets, inbox={"folders": ["new", "s3://bucket/new"]})
    assert set(found) == {"evaluation_sets.classes", "evaluation_sets.held-out", "inbox.folders.0"}


def test_captioners_models_and_files_are_looked_at(tmp_path, monkeypatch):
    monkeypatch.delenv("NO_KEY", raising=False)
    (tmp_path / "half").mkdir()
    captioners = {
        "folder": {"model": "./llava", "prompt": "x"},
        "half": {"model": "./half", "prompt": "x"},
        "hub": {"model": "owner/model", "prompt": "x"},
        "file": {"backend": "import", "captions": "captions.json", "root": "images"},
        "paid": {"backend": "openai", "url": "http://x/v1", "model": "m", "prompt": "x", "api_key_env": "NO_KEY"},
    }
    recipes = {"raw-only": {"captioners": []}}
    found = missing(tmp_path, captioners=captioners, recipes=recipes)
    assert set(found) == {
        "captioners.folder.model", "captioners.half.model", "captioners.file.captions", "captioners.file.root",
        "captioners.paid.api_key_env",
    }  # fmt: skip


def test_trainers_and_filters_models_are_looked_at(tmp_path):
    trainers = {"clip": {"model": "./own.json", "pretrained": "./own.pt", "steps": 2, "batch_size": 4}}
    filters = [{"keep_top": 0.5, "model": "./scorer"}]
    found = missing(tmp_path, trainers=trainers, recipes={"one": {"captioners": [], "filters": filters}})
    assert set(found) == {"trainers.clip.model", "trainers.clip.pretrained", "recipes.one.filters.keep_top.model"}


def test_a_store_where_a_file_lies_is_said(tmp_path):
    (tmp_path / "file").touch()
    assert "this is a file" in missing(tmp_path, store="file/store")["store"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_store_that_cannot_be_written_is_said(tmp_path):
    (tmp_path / "locked").mkdir(mode=0o500)
    assert "cannot be written" in missing(tmp_path, store="locked/store")["store"]


def test_what_lies_elsewhere_is_not_asked_and_nothing_is_made(tmp_path):
    settings = settings_of(source_in(tmp_path / "source", 1), store="s3://bucket/store")
    settings["pairs"] = {"reader": "image_folder", "root": "s3://bucket/images"}
    found = checked(tmp_path, settings)
    assert {each.key for each in found.not_asked} == {"pairs", "store"}
    assert found.missing == []
    assert checked(tmp_path, settings_of(source_in(tmp_path / "source", 1), store="made-later")).missing == []
    assert not (tmp_path / "made-later").exists()


def run(path, *options):
    return CliRunner().invoke(main, ["check", str(path), *options])


def test_the_command_ends_with_1_where_something_is_missing(tmp_path):
    settings = settings_of(source_in(tmp_path / "source", 3))
    path = tmp_path / "factory.yaml"
    path.write_text(yaml.safe_dump(settings))
    assert run(path).exit_code == 0
    assert json.loads(run(path, "--json").stdout)["missing"] == []
    Path(tmp_path / "source" / "captions.json").unlink()
    result = run(path)
    assert result.exit_code == 1
    captions = tmp_path / "source" / "captions.json"
    assert f"not there: pairs: {captions}: there is no such file; correct `captions`." in result.stdout.splitlines()
    assert "valid" not in result.stdout
    result = run(path, "--json")
    assert result.exit_code == 1
    assert "pairs" in [each["key"] for each in json.loads(result.stdout)["missing"]]
