import json

import dagster as dg

from caploom.stages.raw_pairs import ingest_shard
from dagster_project.partitions import RANGE_END_TAG, RANGE_START_TAG, SHARD
from dagster_project.resources.factory import FactoryResource
from dagster_project.sensors import new_images as sensor
from dagster_project.sensors.new_images import new_images_sensor
from dagster_project.sharding import cut_shards_job


def tick(config, instance):
    with dg.build_sensor_context(
        instance=instance, resources={"factory": FactoryResource(config_path=str(config))}
    ) as context:
        return new_images_sensor([cut_shards_job])(context)


def apply(result, instance):
    for request in result.dynamic_partitions_requests:
        instance.add_dynamic_partitions(request.partitions_def_name, list(request.partition_keys))


def test_new_rows_become_partitions_and_one_run_and_a_second_tick_does_nothing(
    write_source, make_factory, tmp_path, instance
):
    source = write_source(25)
    factory = make_factory(source)
    config = tmp_path / "factory.yaml"
    first = tick(config, instance)
    assert first.dynamic_partitions_requests[0].partition_keys == ["shard-00000", "shard-00001", "shard-00002"]
    assert len(first.run_requests) == 1
    assert first.run_requests[0].tags[RANGE_START_TAG] == "shard-00000"
    assert first.run_requests[0].tags[RANGE_END_TAG] == "shard-00002"
    apply(first, instance)
    killed_before_its_run = tick(config, instance)
    assert killed_before_its_run.run_requests[0].run_key == first.run_requests[0].run_key
    assert not killed_before_its_run.dynamic_partitions_requests
    for shard in ("shard-00000", "shard-00001", "shard-00002"):
        ingest_shard(factory, shard)
    assert isinstance(tick(config, instance), dg.SkipReason)

    rows = json.loads((source / "captions.json").read_text())
    (source / "captions.json").write_text(json.dumps([*rows, {"image": "0000.png", "caption": "new"}]))
    assert tick(config, instance).dynamic_partitions_requests[0].partition_keys == ["shard-00003"]


def test_a_tick_that_was_killed_before_its_partitions_were_added_is_made_good(
    write_source, make_factory, tmp_path, instance
):
    make_factory(write_source(5))
    config = tmp_path / "factory.yaml"
    lost = tick(config, instance)
    again = tick(config, instance)
    assert again.run_requests[0].run_key == lost.run_requests[0].run_key
    assert instance.get_dynamic_partitions(SHARD) == []


def test_a_source_that_cannot_be_read_is_said_and_does_not_crash(write_source, make_factory, tmp_path, instance):
    source = write_source(5)
    make_factory(source)
    (source / "captions.json").unlink()
    assert "there is no such file" in tick(tmp_path / "factory.yaml", instance).skip_message


def test_a_large_source_is_cut_by_a_run_and_asked_for_once(write_source, make_factory, tmp_path, monkeypatch, instance):
    monkeypatch.setattr(sensor, "LARGEST_IN_A_TICK", 100)
    source = write_source(25)
    make_factory(source)
    config = tmp_path / "factory.yaml"
    asked, again = tick(config, instance), tick(config, instance)
    assert asked.job_name == "cut_shards"
    assert asked.run_key == again.run_key
    assert "the source is new or was changed" in asked.tags["caploom/why"]
    resources = {"factory": FactoryResource(config_path=str(config))}
    assert cut_shards_job.execute_in_process(instance=instance, resources=resources).success
    assert tick(config, instance).dynamic_partitions_requests[0].partition_keys == [
        "shard-00000",
        "shard-00001",
        "shard-00002",
    ]
    rows = json.loads((source / "captions.json").read_text())
    (source / "captions.json").write_text(json.dumps([*rows, {"image": "0000.png", "caption": "new"}]))
    assert tick(config, instance).run_key != asked.run_key
