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
    assert "waiting: nothing" in run(config).stdout
    scanned = run(config, "--scan").stdout
    assert "taken: 3 image" in scanned
    assert "inbox-00000: 3 rows, not ingested yet" in scanned
    (config.parent / "inbox" / "a\nb.mp4").touch()
    told = json.loads(run(config, "--scan", "--json").stdout)
    assert told["shards"] == [{"shard": "inbox-00000", "rows": 3, "ingested": False}]
    assert "not a kind that is read" in told["events"][-1]["event"]
    assert "\nb.mp4" not in run(config).stdout


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
