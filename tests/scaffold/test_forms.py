"""`init` on every form of data: the YAML that it writes loads, and its reader gives exactly the rows that are there."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from click.testing import CliRunner
from places import FORMS, png, write

from caploom.cli import main
from caploom.config.factory_config import load_config
from caploom.images.decode import ImageFault, read_image_file


def image_bytes(path):
    try:
        return bytes(read_image_file(path))
    except ImageFault:
        return b""


def rows_in(yaml_file):
    return [(image_bytes(row.path), row.caption) for row in load_config(yaml_file).pairs.rows()]


def init(*arguments):
    return CliRunner().invoke(main, ["init", *map(str, arguments), "--captioner", "demo:tiny-llava"])


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_a_yaml_that_reads_its_rows(form, tmp_path):
    build, reader = FORMS[form]
    place, rows = build(tmp_path / "data")
    out = tmp_path / "factory" / "mine.yaml"
    out.parent.mkdir()
    result = init(place, "--out", out)
    assert result.exit_code == 0, result.output
    assert load_config(out).pairs.reader == reader
    assert rows_in(out) == rows
    captioned = any(caption is not None for _, caption in rows)
    assert bool(load_config(out).shears) == captioned
    assert "Wrote" in result.output
    for command in ("check", "plan", "run", "ui"):
        assert f"caploom {command} {out}" in result.output


@pytest.mark.parametrize("form", FORMS)
def test_it_says_as_json_what_it_found(form, tmp_path):
    build, reader = FORMS[form]
    place, rows = build(tmp_path / "data")
    result = init(place, "--out", tmp_path / "mine.yaml", "--json")
    found = json.loads(result.output)
    assert found["pairs"]["reader"] == reader
    assert found["images"] == len(rows)
    assert found["captions"] == len([caption for _, caption in rows if caption is not None])
    assert (found["images_at_least"], found["captions_at_least"]) == (False, False)
    assert found["captioners"] == [{"name": "tiny-llava", "preset": "demo:tiny-llava", "why": None}]


@pytest.mark.parametrize("form", ["photos with texts", "img2dataset's tars", "the hub's Parquet", "a table of paths"])
def test_it_may_be_written_into_the_data_s_own_folder_and_the_data_moved(form, tmp_path, monkeypatch):
    build, _ = FORMS[form]
    place, rows = build(tmp_path / "data")
    monkeypatch.chdir(place)
    result = init(".")
    assert result.exit_code == 0, result.output
    store = load_config(place / "caploom.yaml").store
    (store / "captions").mkdir(parents=True)
    (store / "captions" / "captions.parquet").write_bytes(b"made later")
    moved = place.rename(tmp_path / "elsewhere")
    assert rows_in(moved / "caploom.yaml") == rows
    assert load_config(moved / "caploom.yaml").store.parent == moved


def test_the_keys_are_the_ones_that_matter(tmp_path):
    def pairs_of(form):
        place, _ = FORMS[form][0](tmp_path / form)
        out = tmp_path / f"{form}.yaml"
        assert init(place, "--out", out).exit_code == 0
        return yaml.safe_load(out.read_text(encoding="utf-8"))["pairs"]

    assert pairs_of("photos") == {"reader": "image_folder", "root": "photos"}
    assert pairs_of("CC3M by CRC") == {
        "reader": "image_captions",
        "root": "CC3M by CRC/training",
        "captions": "CC3M by CRC/Train_GCC-training.tsv",
        "columns": ["caption", "url"],
        "image_key": "url",
        "downloaded_as": "crc32",
    }
    assert pairs_of("CC3M by number")["downloaded_as"] == "{index:08d}.jpg"
    assert pairs_of("CC3M by img2dataset")["downloaded_as"] == "img2dataset"
    assert pairs_of("CC3M by name")["downloaded_as"] == "url_name"
    assert pairs_of("LLaVA")["caption_key"] == "conversations.1.value"
    assert pairs_of("Karpathy's JSON")["split"] == ["train", "restval"]
    assert pairs_of("COCO's folder")["root"] == "COCO's folder/train2017"
    assert pairs_of("another machine's table")["rewrite"] == [{"from": "/home/ann/cc3m/", "to": ""}]
    assert pairs_of("the hub's Parquet")["files"] == "the hub's Parquet/data/train*.parquet"
    assert pairs_of("a table without captions")["caption_key"] == "none"


@pytest.mark.parametrize(
    ("train", "test", "files"),
    [
        ("data/train-0.parquet", "data/test-0.parquet", "data/train*.parquet"),
        ("train/0.parquet", "test/0.parquet", "train"),
        ("train/a/0.parquet", "test/a/0.parquet", "train"),
        ("en/train-0.parquet", "en/test-0.parquet", "en/train*.parquet"),
        ("en/train-0.parquet de/train-0.parquet", "en/test-0.parquet", "**/train*.parquet"),
        ("en/train/0.parquet de/train/0.parquet", "en/test/0.parquet", "**/train/*.parquet"),
        ("a.parquet b.parquet", "", ""),
    ],
)
def test_the_split_to_train_on_is_read_however_it_is_named(train, test, files, tmp_path):
    numbers = {name: number for number, name in enumerate([*sorted(train.split()), *test.split()])}
    for name, number in numbers.items():
        path = tmp_path / "data" / "set" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table({"image": [png(number)], "text": [f"picture {number}"]}), path)
    out = tmp_path / "mine.yaml"
    result = init(tmp_path / "data" / "set", "--out", out)
    assert result.exit_code == 0, result.output
    assert load_config(out).pairs.files == f"{tmp_path}/data/set/{files}".rstrip("/")
    assert rows_in(out) == [(png(number), f"picture {number}") for number in range(len(train.split()))]


def test_absolute_paths_of_this_machine_need_no_rewriting(tmp_path):
    paths = [f"{tmp_path}/far/{number:05d}/{number}.png" for number in range(3)]
    write(tmp_path, {path.removeprefix(f"{tmp_path}/"): png(number) for number, path in enumerate(paths)})
    records = [{"image": path, "caption": f"picture {number}"} for number, path in enumerate(paths)]
    write(tmp_path / "tables" / "mine", {"a.json": records[:1] * 400 + records})
    out = tmp_path / "mine.yaml"
    result = init(tmp_path / "tables" / "mine" / "a.json", "--out", out)
    assert result.exit_code == 0, result.output
    assert load_config(out).pairs.root == str(tmp_path / "far")
    assert rows_in(out)[400:] == [(png(number), f"picture {number}") for number in range(3)]
