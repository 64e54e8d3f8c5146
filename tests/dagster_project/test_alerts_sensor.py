"""The sensor against runs that really failed, on a real instance."""

import json
from datetime import timedelta
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.definitions.freshness import FreshnessState, FreshnessStateChange

from caploom.config.factory_config import DEMO_CONFIG, load_config
from caploom.errors import SourceError
from dagster_project.assets.materialization import user_errors
from dagster_project.definitions import build_definitions
from dagster_project.resources.factory import FactoryResource
from dagster_project.sensors.alerts import alerts_sensors

PARTS = dg.StaticPartitionsDefinition(["a", "b", "c"])


@dg.asset(partitions_def=PARTS)
def broken(context: dg.AssetExecutionContext) -> None:
    with user_errors():
        raise SourceError(f"{context.partition_key}.json: there is no such file; correct `pairs`.\nBcc: x@y.z")


@dg.asset
def crashing() -> None:
    raise ZeroDivisionError("nothing to share")


@dg.asset(check_specs=[dg.AssetCheckSpec(name, asset="doubtful") for name in ("sound", "odd", "wrong")])
def doubtful() -> dg.MaterializeResult:
    checks = [
        dg.AssetCheckResult(check_name="sound", passed=True),
        dg.AssetCheckResult(
            check_name="odd", passed=False, severity=dg.AssetCheckSeverity.WARN, description="3 images look odd."
        ),
        dg.AssetCheckResult(check_name="wrong", passed=False, description="2 rows are lost."),
    ]
    return dg.MaterializeResult(check_results=checks)


class Looking:
    """A sensor that keeps its cursor from tick to tick, as the daemon has it."""

    def __init__(self, config: Path, instance: dg.DagsterInstance) -> None:
        self.sensor = alerts_sensors(load_config(config))[0]
        self.config, self.instance = config, instance
        self.cursor = None

    def tick(self):
        with dg.build_sensor_context(
            instance=self.instance,
            cursor=self.cursor,
            resources={"factory": FactoryResource(config_path=str(self.config))},
        ) as context:
            result = self.sensor(context)
        self.cursor = result.cursor
        return result.skip_reason.skip_message


@pytest.fixture
def looking(write_source, make_factory, tmp_path, instance):
    make_factory(write_source(3), alerts={"ui_url": "http://ui.example"})
    yield Looking(tmp_path / "factory.yaml", instance)


def fail(instance, asset=broken, **how):
    return dg.materialize([asset], instance=instance, raise_on_error=False, **how)


def test_it_begins_with_now_and_says_each_failed_run_once(looking, caplog):
    fail(looking.instance, partition_key="a")
    assert looking.tick() == "Starting now: earlier events are not reported."
    failed = fail(looking.instance, partition_key="b")
    assert looking.tick() == "1 new alert; log: delivered"
    assert [looking.tick(), looking.tick()] == ["Nothing went wrong."] * 2
    (message,) = [each.message for each in caplog.records if each.name == "caploom.alerts"]
    head, sentence, url = message.split(" | ")
    assert "failed (broken [b])" in head
    assert sentence == "broken: b.json: there is no such file; correct `pairs`. Bcc: x@y.z"
    assert url == f"http://ui.example/runs/{failed.run_id}"


def test_many_failures_are_one_message_and_a_crash_says_what_it_was(looking, caplog):
    looking.tick()
    for part in PARTS.get_partition_keys():
        fail(looking.instance, partition_key=part)
    fail(looking.instance, crashing)
    assert looking.tick() == "4 new alerts; log: delivered"
    messages = [each.message for each in caplog.records if each.name == "caploom.alerts"]
    assert len(messages) == 4
    assert "crashing: ZeroDivisionError: nothing to share" in messages[-1]


def test_failed_checks_are_told_with_their_severity_and_sound_ones_are_not(looking, caplog):
    looking.tick()
    dg.materialize([doubtful], instance=looking.instance)
    assert looking.tick() == "2 new alerts; log: delivered"
    messages = sorted(each.message for each in caplog.records if each.name == "caploom.alerts")
    assert [message.split(" | ")[:2] for message in messages] == [
        ["the check wrong failed (doubtful)", "2 rows are lost."],
        ["warning: the check odd failed (doubtful)", "3 images look odd."],
    ]


def test_a_tick_killed_before_its_cursor_was_kept_says_nothing_twice(looking, caplog):
    looking.tick()
    before = looking.cursor
    fail(looking.instance, partition_key="a")
    looking.tick()
    looking.cursor = before
    assert looking.tick() == "Nothing went wrong."
    assert len([each for each in caplog.records if each.name == "caploom.alerts"]) == 1


def test_a_run_that_is_launched_again_by_itself_is_not_told(looking):
    looking.tick()
    fail(looking.instance, crashing, tags={"dagster/will_retry": "true"})
    assert looking.tick() == "Nothing went wrong."


def test_what_got_too_old_is_told(looking, caplog):
    looking.tick()
    states = (FreshnessState.PASS, FreshnessState.WARN, FreshnessState.FAIL)
    for moment, (before, after) in enumerate(zip((FreshnessState.UNKNOWN, *states), states, strict=False)):
        looking.instance._report_runless_asset_event(
            FreshnessStateChange(
                key=dg.AssetKey(["captions", "llava"]),
                previous_state=before,
                new_state=after,
                state_change_timestamp=1_000.0 + moment,
            )
        )
    assert looking.tick() == "2 new alerts; log: delivered"
    messages = [each.message for each in caplog.records if each.name == "caploom.alerts"]
    assert messages[0].startswith("captions/llava is getting old")
    assert messages[1].endswith("http://ui.example/assets/captions/llava")


def test_kinds_that_are_not_named_are_passed_over(write_source, make_factory, tmp_path, instance):
    make_factory(write_source(3), alerts={"on": ["freshness"]})
    looking = Looking(tmp_path / "factory.yaml", instance)
    looking.tick()
    fail(instance, crashing)
    assert looking.tick() == "Nothing went wrong."


def test_the_sensor_runs_unless_there_is_nowhere_to_say_it(write_source, make_factory, tmp_path):
    statuses = []
    for alerts in ({}, {"log": False}, {"on": []}):
        make_factory(write_source(1), alerts=alerts)
        statuses.append(alerts_sensors(load_config(tmp_path / "factory.yaml"))[0].default_status)
    assert statuses == [dg.DefaultSensorStatus.RUNNING, *[dg.DefaultSensorStatus.STOPPED] * 2]


def test_the_yaml_s_freshness_is_the_assets_policy(write_source, make_factory, tmp_path):
    windows = {"raw_pairs": "1d", "captions": {"warn": "12h", "fail": "2w"}, "ablation_report": "90m"}
    make_factory(write_source(1), freshness=windows)
    path = tmp_path / "factory.yaml"
    graph = build_definitions(load_config(path), FactoryResource(config_path=str(path))).resolve_asset_graph()
    found = {
        node.key.to_user_string(): (policy.warn_window and policy.warn_window.to_timedelta(), policy.fail_window)
        for node in graph.asset_nodes
        if (policy := node.freshness_policy) is not None
    }
    assert {key: (warn, fail.to_timedelta()) for key, (warn, fail) in found.items()} == {
        "raw_pairs": (None, timedelta(days=1)),
        "captions/colours": (timedelta(hours=12), timedelta(days=14)),
        "ablation_report": (None, timedelta(minutes=90)),
    }


def test_the_demo_has_no_policy_and_alerts_in_its_log_only():
    config = load_config(DEMO_CONFIG)
    assert config.alerts.channels == ["log"]
    assert json.loads(config.freshness.model_dump_json(exclude_none=True)) == {}
