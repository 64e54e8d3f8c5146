import io
import json

import pytest
import yaml
from click.testing import CliRunner
from PIL import Image

from caploom.cli import main
from caploom.common.settings import _warn_renamed


@pytest.fixture
def config(tmp_path):
    (tmp_path / "inbox").mkdir()
    for number in range(3):
        buffer = io.BytesIO()
        Image.new("RGB", (8, 8), (number, 0, 0)).save(buffer, "PNG")
        (tmp_path / "inbox" / f"{number}.png").write_bytes(buffer.getvalue())
        (tmp_path / "inbox" / f"{number}.txt").write_text(f"caption {number}")
    settings = {
        "name": "fed",
        "store": "store",
        "inbox": {"folders": ["inbox"], "settle_seconds": 0, "gather_seconds": 0},
        "trainers": {"tiny": {"model": "picture-book", "steps": 2, "batch_size": 16}},
        "evaluation_sets": {"s": {"reader": "picture_book", "folder": "s", "split": "evaluation", "scenes": 5}},
        "recipes": {"raw-only": {"captioners": []}},
    }
    path = tmp_path / "fed.yaml"
    path.write_text(yaml.safe_dump(settings))
    return path


def run(*arguments):
    return CliRunner().invoke(main, ["inbox", *map(str, arguments)])


def test_it_tells_what_waits_and_what_became_of_the_files(config):
    before = run(config).stdout
    assert "not scanned yet: 3 image; 3 files were not looked at" in before
    assert "waiting" not in before
    scanned = run(config, "--scan").stdout
    assert "taken: 3 image" in scanned
    assert "waiting: nothing" in scanned
    assert "not scanned" not in scanned
    assert "inbox-00000: 3 rows, not ingested yet" in scanned
    (config.parent / "inbox" / "a\nb.mp4").touch()
    told = json.loads(run(config, "--scan", "--json").stdout)
    assert told["shards"] == [{"shard": "inbox-00000", "rows": 3, "ingested": False}]
    assert "not a kind that is read" in told["events"][-1]["event"]
    assert "\nb.mp4" not in run(config).stdout


def test_what_came_or_changed_since_the_last_scan_is_not_called_taken(config):
    run(config, "--scan")
    inbox = config.parent / "inbox"
    Image.new("RGB", (9, 9)).save(inbox / "new.png")
    Image.new("RGB", (80, 80)).save(inbox / "0.png")
    for stray in ("film.mp4", "_SUCCESS", "half.part"):
        (inbox / stray).write_bytes(b"x")
    state = json.loads(run(config, "--json").stdout)
    assert state["not_scanned"] == {"image": 2}
    assert state["taken"] == {"image": 3}
    for journal in (config.parent / "store").rglob("journal.sqlite*"):
        journal.unlink()
    run(config, "--scan")
    assert json.loads(run(config, "--json").stdout)["not_scanned"] == {}


def test_a_folder_that_is_not_there_is_said_to_be_missing(config):
    settings = yaml.safe_load(config.read_text())
    settings["inbox"]["folders"] = ["inbox", "elsewhere"]
    config.write_text(yaml.safe_dump(settings))
    told = run(config).stdout
    assert f"cannot be scanned: {config.parent / 'elsewhere'}" in told
    assert "not scanned yet: 3 image" in told


def test_look_is_an_old_name_of_scan_that_still_works_and_warns(config, caplog):
    _warn_renamed.cache_clear()
    assert "taken: 3 image" in run(config, "--look").stdout
    assert caplog.messages == ['The option "--look" is deprecated: write "--scan", its new name.']


def test_without_an_inbox_it_says_so(config):
    settings = yaml.safe_load(config.read_text())
    del settings["inbox"]
    settings["pairs"] = {"reader": "image_folder", "root": "inbox"}
    config.write_text(yaml.safe_dump(settings))
    result = run(config)
    assert result.exit_code == 2
    assert "it has no `inbox`; name its folders there." in result.stderr
