"""What runs automatically: which automations are on, and when each condition requests what."""

import io
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml
from PIL import Image

from caploom.config.factory import Factory
from caploom.config.factory_config import load_config
from caploom.errors import ConfigError
from dagster_project.definitions import definitions_of
from dagster_project.partitions import RANGE_END_TAG, RANGE_START_TAG, SHARD
from dagster_project.resources.factory import FactoryResource
from dagster_project.settings import observe_settings
from dagster_project.tags import WHY_TAG

CAPTIONER = {"model": "demo:tiny-llava", "prompt": "Describe <image>:"}
SETTINGS: dict[str, Any] = {
    "name": "fed",
    "store": "store",
    "shard_size": 2,
    "inbox": {"folders": ["inbox"], "settle_seconds": 0, "gather_seconds": 0},
    "captioners": {"one": CAPTIONER, "two": CAPTIONER},
    "shears": {"first": ["first_sentence"]},
    "trainers": {"tiny": {"model": "picture-book", "steps": 2, "batch_size": 4}},
    "evaluation_sets": {"scenes": {"reader": "picture_book", "folder": "scenes", "split": "evaluation", "scenes": 5}},
    "recipes": {"raw-only": {"captioners": []}, "both": {"captioners": "all", "shear": "first"}},
}


@pytest.fixture
def in_memory():
    """An instance in memory: a tick asks it a thousand times, and one on files opens its database for each."""
    with dg.DagsterInstance.ephemeral() as made:
        yield made


@pytest.fixture
def write(tmp_path: Path):
    (tmp_path / "inbox").mkdir()

    def write(**changes: Any) -> Path:
        path = tmp_path / "fed.yaml"
        settings = {**SETTINGS, **changes}
        path.write_text(yaml.safe_dump({key: value for key, value in settings.items() if value is not None}))
        return path

    return write


def switches(path: Path) -> dict[str, bool]:
    repository = definitions_of(path).get_repository_def()
    running = {dg.DefaultSensorStatus.RUNNING, dg.DefaultScheduleStatus.RUNNING}
    return {each.name: each.default_status in running for each in (*repository.sensor_defs, *repository.schedule_defs)}


def test_with_an_inbox_all_runs_but_retraining(write):
    assert switches(write()) == {
        "inbox": True,
        "caption_new_shards": True,
        "merge_new_captions": True,
        "report_new_measurements": True,
        "retry_failed_rows": True,
        "retrain": False,
        "retrain_when_grown": False,
        "new_images": False,
        "edited_settings": True,
        "alerts": True,
    }


def test_without_an_inbox_nothing_runs_that_costs(write):
    pairs = {"reader": "image_folder", "root": "inbox"}
    running = {name for name, on in switches(write(inbox=None, pairs=pairs)).items() if on}
    assert running == {"new_shards", "edited_settings", "alerts"}


def test_each_can_be_switched_off_and_retraining_on(write):
    automation = {
        "ingest": False,
        "caption": False,
        "merge": False,
        "report": False,
        "retry_failures": False,
        "retrain": {"when": "schedule", "cron": "weekly"},
        "timezone": "Europe/Berlin",
    }
    path = write(automation=automation)
    assert {name for name, on in switches(path).items() if on} == {"retrain", "edited_settings", "alerts"}
    schedule = definitions_of(path).get_repository_def().get_schedule_def("retrain")
    assert (schedule.cron_schedule, schedule.execution_timezone) == ("0 2 * * 0", "Europe/Berlin")
    assert switches(write(automation={"retrain": {"when": "growth"}}))["retrain_when_grown"]


@pytest.mark.parametrize(
    ("automation", "sentence"),
    [
        ({"retrain": {"cron": "now and then"}}, "automation.retrain.cron: 'now and then' is not a time: write hourly,"),
        ({"timezone": "Mars/North"}, "automation.timezone: there is no time zone 'Mars/North'"),
        ({"retrain": {"recipes": ["bth"]}}, 'automation.retrain.recipes: there is no recipe "bth"'),
    ],
)
def test_a_wrong_time_or_recipe_is_said(write, automation, sentence):
    with pytest.raises(ConfigError, match=sentence.replace("(", r"\(")):
        load_config(write(automation=automation))


class Daemon:
    """Dagster's own evaluation of all conditions, tick by tick, on an instance where assets are made by saying so."""

    def __init__(self, path: Path, instance: dg.DagsterInstance) -> None:
        self.definitions, self.instance, self.cursor = definitions_of(path), instance, None
        observe_settings(instance, Factory.from_yaml(path))

    def tick(self) -> set[tuple[str, str | None]]:
        result = dg.evaluate_automation_conditions(self.definitions, self.instance, cursor=self.cursor)
        self.cursor = result.cursor
        asked: set[tuple[str, str | None]] = set()
        for each in result.results:
            found = each.true_subset
            keys = found.expensively_compute_partition_keys() if found.is_partitioned else [None] * found.size
            asked |= {(each.key.to_user_string(), key) for key in keys}
        return asked

    def made(self, asset: str, *partitions: str) -> None:
        for partition in partitions:
            event = dg.AssetMaterialization(dg.AssetKey(asset.split("/")), partition=partition)
            self.instance.report_runless_asset_event(event)


def test_a_new_shard_goes_through_captioners_shears_and_merges_and_nothing_comes_too_early(write, in_memory):
    daemon = Daemon(write(), in_memory)
    assert daemon.tick() == set()  # nothing is there of which anything could be made
    in_memory.add_dynamic_partitions(SHARD, ["inbox-00000"])
    assert daemon.tick() == set()
    daemon.made("raw_pairs", "inbox-00000")
    raw = {("sheared_captions", "raw-only")}
    assert daemon.tick() == {("captions/one", "inbox-00000"), ("captions/two", "inbox-00000"), *raw}
    daemon.made("sheared_captions", "raw-only")
    daemon.made("captions/one", "inbox-00000")
    assert daemon.tick() == {
        ("captions/two", "inbox-00000"),  # nobody made it yet
        ("sheared/one", "first"),
        ("training_set", "raw-only"),
    }
    daemon.made("training_set", "raw-only")
    daemon.made("sheared/one", "first")
    daemon.made("captions/two", "inbox-00000")
    assert daemon.tick() == {("sheared/two", "first")}
    daemon.made("sheared/two", "first")
    assert daemon.tick() == {("sheared_captions", "both")}
    daemon.made("sheared_captions", "both")
    assert daemon.tick() == {("training_set", "both")}
    daemon.made("training_set", "both")
    assert daemon.tick() == set()

    in_memory.add_dynamic_partitions(SHARD, ["inbox-00001"])
    daemon.made("raw_pairs", "inbox-00001")
    assert daemon.tick() == {("captions/one", "inbox-00001"), ("captions/two", "inbox-00001"), *raw}


def test_an_edit_of_the_yaml_launches_nothing(write, in_memory):
    daemon = Daemon(write(), in_memory)
    in_memory.add_dynamic_partitions(SHARD, ["inbox-00000"])
    daemon.made("raw_pairs", "inbox-00000")
    for asset, partitions in (
        ("captions/one", ["inbox-00000"]),
        ("captions/two", ["inbox-00000"]),
        ("sheared/one", ["first"]),
        ("sheared/two", ["first"]),
        ("sheared_captions", ["raw-only", "both"]),
        ("training_set", ["raw-only", "both"]),
    ):
        daemon.made(asset, *partitions)
    daemon.tick()
    cursor = daemon.cursor
    edited = write(shears={"first": [{"max_words": 3}]}, captioners={"one": {**CAPTIONER, "seed": 4}, "two": CAPTIONER})
    daemon = Daemon(edited, in_memory)
    daemon.cursor = cursor
    assert daemon.tick() == set()
    assert daemon.tick() == set()


def test_the_report_follows_a_measurement(write, in_memory):
    daemon = Daemon(write(), in_memory)
    daemon.tick()
    daemon.made("retrieval_metrics", "both")
    assert ("ablation_report", None) in daemon.tick()
    assert ("ablation_report", None) not in daemon.tick()


def inbox_tick(path: Path, instance: dg.DagsterInstance) -> Any:
    (sensor,) = (each for each in definitions_of(path).get_repository_def().sensor_defs if each.name == "inbox")
    resources = {"factory": FactoryResource(config_path=str(path))}
    with dg.build_sensor_context(instance=instance, resources=resources) as context:
        return sensor(context)


def drop(inbox: Path, numbers: range) -> None:
    for number in numbers:
        buffer = io.BytesIO()
        Image.new("RGB", (8, 8), (number, 0, 0)).save(buffer, "PNG")
        (inbox / f"{number}.png").write_bytes(buffer.getvalue())
        (inbox / f"{number}.txt").write_text(f"number {number}")


def test_the_inbox_s_shards_become_partitions_and_one_run_until_they_are_ingested(write, tmp_path, instance):
    path = write()
    drop(tmp_path / "inbox", range(3))
    lost = inbox_tick(path, instance)  # killed before anything of it was done
    first = inbox_tick(path, instance)
    assert [request.run_key for request in first.run_requests] == [lost.run_requests[0].run_key] == ["inbox-00000"]
    tags = first.run_requests[0].tags
    assert (tags[RANGE_START_TAG], tags[RANGE_END_TAG]) == ("inbox-00000", "inbox-00001")
    assert tags[WHY_TAG] == "new images in the inbox: inbox-00000 to inbox-00001"
    assert first.dynamic_partitions_requests[0].partition_keys == ["inbox-00000", "inbox-00001"]
    instance.add_dynamic_partitions(SHARD, ["inbox-00000", "inbox-00001"])
    killed_before_its_run = inbox_tick(path, instance)
    assert killed_before_its_run.dynamic_partitions_requests == []
    assert [request.run_key for request in killed_before_its_run.run_requests] == ["inbox-00000"]


def test_an_inbox_that_is_not_there_is_said_and_does_not_crash(write, tmp_path, instance):
    (tmp_path / "inbox").rmdir()
    assert "there is no such file or folder" in inbox_tick(write(), instance).skip_reason.skip_message
    assert inbox_tick(write(), instance).skip_reason.skip_message == "Nothing is new."
    events = (tmp_path / "store" / "inbox" / "journal.sqlite").exists()
    assert events


def test_failed_images_are_asked_for_again_by_the_schedule(write, tmp_path, monkeypatch, instance):
    path = write()
    schedule = definitions_of(path).get_repository_def().get_schedule_def("retry_failed_rows")
    failures = {"one": {"inbox-00000": 2, "inbox-00001": 1, "inbox-00003": 4}, "two": {}}
    monkeypatch.setattr("dagster_project.schedules.failed_rows.shards_to_retry", lambda _, name: failures[name])
    instance.add_dynamic_partitions(SHARD, [f"inbox-{number:05d}" for number in range(4)])
    resources = {"factory": FactoryResource(config_path=str(path))}
    with dg.build_schedule_context(instance=instance, resources=resources) as context:
        requests = list(schedule(context))
    assert [(each.tags[RANGE_START_TAG], each.tags[RANGE_END_TAG]) for each in requests] == [
        ("inbox-00000", "inbox-00001"),
        ("inbox-00003", "inbox-00003"),
    ]
    assert requests[0].tags[WHY_TAG] == "one failed on 3 images that may be retried"
    assert requests[0].run_config["ops"] == {"captions__one": {"config": {"retry_failures": True}}}


def test_a_report_that_came_too_early_is_no_fault_of_the_automation_and_one_of_a_person(write, instance):
    path = write()
    definitions = definitions_of(path)
    for tags, succeeds in (({WHY_TAG: "a recipe was measured"}, True), ({}, False)):
        done = definitions.resolve_job_def("report").execute_in_process(
            instance=instance, tags=tags, raise_on_error=False
        )
        assert done.success is succeeds
        assert done.get_asset_materialization_events() == []
