import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from small_factory import settings_of

from caploom.cli import main
from caploom.config.factory import Factory
from caploom.stages.raw_pairs import ingest_shard
from caploom.stages.shards import create_new_shards


@pytest.fixture
def config(write_source, write_config) -> Path:
    path = write_config(settings_of(write_source(3)))
    factory = Factory.from_yaml(path)
    (shard,) = create_new_shards(factory)
    ingest_shard(factory, shard)
    return path


def call(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["reproduce", *(str(argument) for argument in arguments)])


def test_an_identical_artifact_is_exit_code_0_and_leaves_nothing(config, monkeypatch, tmp_path):
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    result = call(config, "raw_pairs [shard-00000]")
    assert result.exit_code == 0
    assert result.stdout.startswith("raw_pairs [shard-00000]: byte-identical: 2 files; rebuilt in ")
    assert not list(temporary.iterdir())


def test_a_difference_is_exit_code_1_and_named_in_text_and_json(config, tmp_path):
    image = tmp_path / "source" / "images" / "0001.png"
    image.write_bytes(image.read_bytes() + b"\x1b[31m")
    result = call(config, "raw_pairs [shard-00000]")
    assert result.exit_code == 1
    assert "raw_pairs [shard-00000]: different: 1 of 2 files byte-identical" in result.stdout
    assert "0001.png has other bytes than then" in result.stdout
    listed = call(config, "raw_pairs [shard-00000]", "--json")
    assert listed.exit_code == 1
    told = json.loads(listed.stdout)
    assert (told["same"], told["outcome"]) == (False, "different")
    assert [(each["name"], each["sameness"]) for each in told["files"]] == [
        ("failures.parquet", "identical"),
        ("pairs.parquet", "different"),
    ]
    assert "0001.png" in told["causes"][0]


def test_what_was_made_stays_where_it_was_asked_for(config, tmp_path):
    result = call(config, "shards [shard-00000]", "--in", tmp_path / "again")
    assert result.exit_code == 0
    assert len(list((tmp_path / "again" / "shards").rglob("rows.parquet"))) == 1
    assert f"What was made: {tmp_path / 'again'}" in result.stderr
    refused = call(config, "shards [shard-00000]", "--in", tmp_path / "again")
    assert refused.exit_code == 2
    assert "the folder is not empty" in refused.stderr


def test_an_unknown_artifact_is_a_mistake(config):
    result = call(config, "raw_pears [shard-00000]")
    assert result.exit_code == 2
    assert "raw_pairs" in result.stderr
    assert "Traceback" not in result.output
