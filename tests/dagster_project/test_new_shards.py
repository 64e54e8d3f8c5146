"""The sensor that is always on: the source's shards are there as partitions, and nothing else is begun."""

import json

import dagster as dg
import pytest
from small_factory import settings_of

from caploom.config.factory import Factory
from caploom.config.factory_config import load_config
from dagster_project.partitions import SHARD
from dagster_project.resources.factory import FactoryResource
from dagster_project.sensors import new_shards as sensor
from dagster_project.sensors.new_shards import new_shards_sensors
from dagster_project.sharding import cut_shards_job, shards_at_the_start


@pytest.fixture
def tick(write_source, write_config, instance):
    """Ticks the sensor of a factory of 25 rows, 10 a shard; what it asks for is done."""
    source = write_source(25)
    path = write_config(settings_of(source))
    [made] = new_shards_sensors(load_config(path), [cut_shards_job])

    def once(cursor=None):
        resources = {"factory": FactoryResource(config_path=str(path))}
        with dg.build_sensor_context(instance=instance, resources=resources, cursor=cursor) as context:
            result = made(context)
        for request in getattr(result, "dynamic_partitions_requests", None) or []:
            instance.add_dynamic_partitions(request.partitions_def_name, list(request.partition_keys))
        return result

    once.source, once.path = source, path
    return once


def test_it_adds_partitions_and_launches_nothing(tick, instance):
    first = tick()
    assert instance.get_dynamic_partitions(SHARD) == ["shard-00000", "shard-00001", "shard-00002"]
    assert not first.run_requests
    assert "no new rows" in tick().skip_reason.skip_message
    rows = json.loads((tick.source / "captions.json").read_text())
    (tick.source / "captions.json").write_text(json.dumps([*rows, {"image": "0000.png", "caption": "new"}]))
    tick()
    assert instance.get_dynamic_partitions(SHARD)[-1] == "shard-00003"


def test_a_large_source_is_split_by_a_run(tick, monkeypatch, instance):
    monkeypatch.setattr(sensor, "LARGEST_IN_A_TICK", 100)
    [request] = tick().run_requests
    assert request.job_name == "cut_shards"
    assert instance.get_dynamic_partitions(SHARD) == []


def test_after_a_long_look_it_rests(tick):
    assert "later" in tick(cursor=json.dumps({"rests_until": 1e12})).skip_message
    assert json.loads(tick(cursor=json.dumps({"rests_until": 0.0})).cursor)["rests_until"] > 0


def test_a_source_that_cannot_be_read_is_said(tick):
    (tick.source / "captions.json").unlink()
    assert "there is no such file" in tick().skip_message


def test_the_shards_are_there_before_the_page_opens(tick, instance):
    shards_at_the_start(Factory.from_yaml(tick.path), instance)
    assert instance.get_dynamic_partitions(SHARD) == ["shard-00000", "shard-00001", "shard-00002"]


def test_a_factory_of_an_inbox_alone_has_none(write_source, write_config, tmp_path):
    (tmp_path / "inbox").mkdir()
    settings = settings_of(write_source(1), inbox={"folders": ["inbox"]})
    del settings["pairs"]
    assert new_shards_sensors(load_config(write_config(settings)), [cut_shards_job]) == []
