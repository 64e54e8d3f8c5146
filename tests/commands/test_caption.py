"""`caploom caption`: the one-liner for people with a folder of pictures and nothing else."""

import json
import os
import signal
import subprocess
import sys
import time

import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from small_factory import picture

from caploom.cli import main
from caploom.config.factory import Factory

TINY = ("--captioner", "demo:tiny-llava")


@pytest.fixture
def photos(tmp_path):
    """Pictures without captions, one of them in a folder of its own, and a file that is none."""
    folder = tmp_path / "photos"
    (folder / "inner").mkdir(parents=True)
    for number in range(5):
        picture(number).resize((64, 64)).save(folder / f"{number}.png")
    picture(7).resize((64, 64)).save(folder / "inner" / "seven.jpg")
    (folder / "notes.pdf").write_bytes(b"%PDF")
    return folder


def call(*arguments):
    return CliRunner().invoke(main, ["caption", *map(str, arguments)])


def test_pictures_without_captions_become_lines_of_json(photos, tmp_path):
    out = tmp_path / "captions.jsonl"
    result = call(photos, *TINY, "--out", out)
    assert result.exit_code == 0, result.output
    assert "captions.jsonl: 6 captions of 6 images." in result.output
    assert "1 (not_an_image)" in result.output
    rows = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert {row["image"] for row in rows} == {"0.png", "1.png", "2.png", "3.png", "4.png", "inner/seven.jpg"}
    assert all(row["caption"].strip() and row["captioner"] == "tiny-llava" for row in rows)


def test_new_pictures_alone_cost_anything_the_second_time(photos, tmp_path):
    out = tmp_path / "captions.jsonl"
    call(photos, *TINY, "--out", out)
    first = out.read_bytes()
    assert call(photos, *TINY, "--out", out).exit_code == 0
    assert out.read_bytes() == first
    picture(9).resize((64, 64)).save(photos / "nine.png")
    assert "7 captions of 7 images" in call(photos, *TINY, "--out", out).output
    factory = Factory.from_yaml(tmp_path / "captions.jsonl.factory" / "caploom.yaml")
    made = factory.store.list("captions", "tiny-llava")
    assert [each.manifest.summary["generated"] for each in made] == [6, 1]


def test_a_shear_and_several_captioners_and_every_form(photos, tmp_path):
    options = (*TINY, "--captioner", "demo:tiny-otter", "--shear", "first_sentence", "--shear", "max_words: 4")
    store = ("--store", tmp_path / "work")
    for name in ("c.parquet", "c.txt", "texts"):
        result = call(photos, *options, *store, "--out", tmp_path / name)
        assert result.exit_code == 0, result.output
    table = pq.read_table(tmp_path / "c.parquet")
    assert sorted(set(table["captioner"].to_pylist())) == ["tiny-llava", "tiny-otter"]
    assert len(table) == 12
    assert max(len(caption.split()) for caption in table["caption"].to_pylist()) == 4
    lines = (tmp_path / "c.txt").read_text(encoding="utf-8").splitlines()
    assert [line.split("\t")[1] for line in lines] == table["caption"].to_pylist()
    beside = (tmp_path / "texts" / "inner" / "seven.txt").read_text(encoding="utf-8").splitlines()
    assert beside == [row["caption"] for row in table.to_pylist() if row["image"] == "inner/seven.jpg"]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("no-such", *TINY, "--out", "c.jsonl"), "no-such: there is no such file or folder"),
        (("photos", "--captioner", "tiny-lava", "--out", "c.jsonl"), 'There is no preset "tiny-lava"'),
        (("photos", *TINY, "--out", "c.docx"), "c.docx: captions are written as .jsonl, .parquet or .txt"),
        (("photos", *TINY, "--out", "photos.jsonl"), "photos.jsonl: it is a folder already"),
        (("photos", *TINY, "--out", "c.jsonl", "--shear", "first_sentense"), 'did you mean "first_sentence"'),
        (("photos", *TINY, "--out", "c.jsonl", "--shear", "max_words: ["), "--shear 'max_words: ['"),
        (
            ("photos", "--captioner", "qwen-vl", "--out", "c.jsonl"),
            "it lacks `url`, the server's base address; give it, as in --url",
        ),
        (("photos", *TINY, "--out", "photos/c.jsonl"), "photos/c.jsonl: it would lie in photos, where the next call"),
        (("photos", *TINY, "--out", "photos"), "photos: it would lie in photos"),
        (("photos", *TINY, "--out", "c.jsonl", "--store", "photos/work"), "photos/work: it would lie in photos"),
        (("empty", *TINY, "--out", "c.jsonl"), "empty: the folder is empty"),
        (("papers", *TINY, "--out", "c.jsonl"), "papers: "),
    ],
)
def test_a_mistake_is_one_sentence(photos, tmp_path, monkeypatch, arguments, sentence):
    monkeypatch.chdir(tmp_path)
    for name in ("empty", "papers", "photos.jsonl"):
        (tmp_path / name).mkdir()
    (tmp_path / "papers" / "a.pdf").write_bytes(b"%PDF")
    result = call(*arguments)
    assert result.exit_code == 2, result.output
    assert sentence in result.output
    assert "Traceback" not in result.output


@pytest.mark.slow
def test_a_killed_call_goes_on_where_it_stopped(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(400):
        picture(number).resize((64, 64)).save(folder / f"{number:03d}.png")
    out = tmp_path / "captions.jsonl"
    command = [sys.executable, "-m", "caploom.cli", "caption", str(folder), *TINY, "--out", str(out)]
    running = subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"})
    store = tmp_path / "captions.jsonl.factory"
    while running.poll() is None and not list(store.glob("captions/*/*/pending/*/*.parquet")):
        time.sleep(0.05)
    running.send_signal(signal.SIGKILL)
    running.wait()
    assert not out.exists()
    subprocess.run(command, check=True)
    assert len(out.read_text(encoding="utf-8").splitlines()) == 400
    [made] = Factory.from_yaml(store / "caploom.yaml").store.list("captions", "tiny-llava")
    assert 0 < made.manifest.summary["generated"] < 400
