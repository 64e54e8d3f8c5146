"""The sensor that reports faults: failed runs, failed checks, results that got too old.

It reads Dagster's event log from where it stopped. Its findings are recorded in the store's outbox under the event's
key, and only then does the cursor move: after a kill between any two steps, the next tick finds the same keys again.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

import dagster as dg

from caploom.alerts.alert import Alert, ui_page
from caploom.alerts.outbox import deliver_waiting, remember
from caploom.config.alerts import AlertKind, AlertSettings
from caploom.config.factory_config import FactoryConfig
from caploom.errors import CaploomError
from dagster_project.resources.factory import FactoryResource

_AT_ONCE = 500  # events per type and tick
_End = Literal[dg.DagsterEventType.RUN_FAILURE, dg.DagsterEventType.RUN_SUCCESS, dg.DagsterEventType.RUN_CANCELED]
_ENDS: tuple[_End, ...] = (
    dg.DagsterEventType.RUN_FAILURE,
    dg.DagsterEventType.RUN_SUCCESS,
    dg.DagsterEventType.RUN_CANCELED,
)
_WILL_RETRY = "dagster/will_retry"
_MOST_CHECKS, _MOST_ASSETS = 200, 200  # per run


def alerts_sensors(config: FactoryConfig) -> list[dg.SensorDefinition]:
    """The sensor, running unless no channel is switched on or nothing is to be reported."""
    wanted = bool(config.alerts.channels and config.alerts.on)

    @dg.sensor(
        name="alerts",
        minimum_interval_seconds=30,
        default_status=dg.DefaultSensorStatus.RUNNING if wanted else dg.DefaultSensorStatus.STOPPED,
        description="Reports faults on the YAML's channels: failed runs and checks, results that got too old.",
    )
    def alerts(context: dg.SensorEvaluationContext, factory: FactoryResource) -> dg.SensorResult | dg.SkipReason:
        try:
            opened = factory.open()
            log = EventLog(context.instance, opened.config.name, opened.config.alerts)
            if context.cursor is None:
                return _stays(log.end(), "Starting now: earlier events are not reported.")
            found, cursor = log.after(json.loads(context.cursor))
            new = remember(opened.store.root, found, opened.config.alerts)
            said = deliver_waiting(opened.store.root, opened.config.alerts)
        except CaploomError as error:
            return dg.SkipReason(str(error))
        told = [f"{new} new alerts" if new != 1 else "1 new alert"] if new else []
        told += [f"{each.channel}: {each.fault or 'delivered'}" for each in said]
        for sentence in told:
            context.log.info(sentence)
        return _stays(cursor, "; ".join(told) or "Nothing went wrong.")

    return [alerts]


def _stays(cursor: Mapping[str, int], why: str) -> dg.SensorResult:
    return dg.SensorResult(skip_reason=dg.SkipReason(why), cursor=json.dumps(cursor))


@dataclass(frozen=True)
class EventLog:
    """Finds the events of Dagster's event log that are worth an alert."""

    instance: dg.DagsterInstance
    factory: str
    settings: AlertSettings

    def end(self) -> dict[str, int]:
        """The newest event of each type: where a new sensor begins."""
        wanted: list[dg.DagsterEventType] = [*_ENDS, dg.DagsterEventType.FRESHNESS_STATE_CHANGE]
        return {each.value: self._newest(each) for each in wanted}

    def after(self, cursor: Mapping[str, int]) -> tuple[dict[str, Alert], dict[str, int]]:
        """Alerts for events after the cursor, by a key of the event; and the cursor after them."""
        found: dict[str, Alert] = {}
        moved = dict(cursor)
        for event_type in _ENDS:
            for record in self._ends(event_type, moved[event_type.value]):
                found |= self._of_run(record.event_log_entry, failed=event_type is dg.DagsterEventType.RUN_FAILURE)
                moved[event_type.value] = record.storage_id
        freshness = dg.DagsterEventType.FRESHNESS_STATE_CHANGE
        for record in self._freshness(moved[freshness.value]):
            found |= self._of_freshness(record)
            moved[freshness.value] = record.storage_id
        return found, moved

    def _newest(self, event_type: dg.DagsterEventType) -> int:
        if event_type in _ENDS:
            records = self.instance.fetch_run_status_changes(event_type, limit=1).records
        else:
            records = self.instance.event_log_storage.get_event_records(
                dg.EventRecordsFilter(event_type), limit=1, ascending=False
            )
        return records[0].storage_id if records else 0

    def _ends(self, event_type: _End, after: int) -> list[dg.EventLogRecord]:
        wanted = dg.RunStatusChangeRecordsFilter(event_type, after_storage_id=after)
        return list(self.instance.fetch_run_status_changes(wanted, limit=_AT_ONCE, ascending=True).records)

    def _freshness(self, after: int) -> list[dg.EventLogRecord]:
        wanted = dg.EventRecordsFilter(dg.DagsterEventType.FRESHNESS_STATE_CHANGE, after_cursor=after)
        return list(self.instance.event_log_storage.get_event_records(wanted, limit=_AT_ONCE, ascending=True))

    def _of_run(self, entry: dg.EventLogEntry, *, failed: bool) -> dict[str, Alert]:
        """Alerts for a finished run: its failure and its failed checks."""
        run = self.instance.get_run_by_id(entry.run_id)
        if run is None:
            return {}
        found = dict(self._checks(run))
        if failed and run.tags.get(_WILL_RETRY) != "true":  # its process died, and Dagster launches it again
            found[f"run {run.run_id}"] = Alert(
                kind=AlertKind.RUN_FAILURE,
                factory=self.factory,
                title=f"the run {run.job_name} failed",
                sentence=self._why(run) or entry.user_message or "Its process ended without a message.",
                time=_time(entry.timestamp),
                asset=self._assets(run),
                partition=_partition(run),
                run_id=run.run_id,
                url=ui_page(self.settings, run_id=run.run_id),
            )
        return found

    def _why(self, run: dg.DagsterRun) -> str | None:
        """The message of the first failed step."""
        failures = self.instance.get_records_for_run(
            run.run_id, of_type=dg.DagsterEventType.STEP_FAILURE, limit=1
        ).records
        event = failures[0].event_log_entry.dagster_event if failures else None
        if event is None:
            return None
        told = event.step_failure_data
        if told.user_failure_data is not None and told.user_failure_data.description:
            return f"{event.step_key}: {told.user_failure_data.description}"
        error = told.error.cause or told.error if told.error is not None else None
        return f"{event.step_key}: {error.message}" if error is not None else None

    def _assets(self, run: dg.DagsterRun) -> str | None:
        """The assets that a run was to make."""
        records = self.instance.get_records_for_run(
            run.run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION_PLANNED, limit=_MOST_ASSETS
        ).records
        events = [record.event_log_entry.dagster_event for record in records]
        keys = {event.asset_key for event in events if event is not None and event.asset_key is not None}
        chosen = sorted(key.to_user_string() for key in keys)
        if not chosen:
            return None
        return chosen[0] if len(chosen) == 1 else f"{chosen[0]} and {len(chosen) - 1} more"

    def _checks(self, run: dg.DagsterRun) -> Iterator[tuple[str, Alert]]:
        records = self.instance.get_records_for_run(
            run.run_id, of_type=dg.DagsterEventType.ASSET_CHECK_EVALUATION, limit=_MOST_CHECKS
        ).records
        for record in records:
            event = record.event_log_entry.dagster_event
            if event is None or (told := event.asset_check_evaluation_data).passed:
                continue
            asset = told.asset_key.to_user_string()
            yield (
                f"check {run.run_id} {asset} {told.check_name} {told.partition}",
                Alert(
                    kind=AlertKind.CHECK_FAILURE,
                    factory=self.factory,
                    title=f"{'warning: ' if told.severity is dg.AssetCheckSeverity.WARN else ''}the check "
                    f"{told.check_name} failed",
                    sentence=told.description or "There is no further message.",
                    time=_time(record.event_log_entry.timestamp),
                    asset=asset,
                    partition=told.partition or _partition(run),
                    run_id=run.run_id,
                    url=ui_page(self.settings, run_id=run.run_id),
                ),
            )

    def _of_freshness(self, record: dg.EventLogRecord) -> dict[str, Alert]:
        event = record.event_log_entry.dagster_event
        if event is None:
            return {}
        change = event.asset_freshness_state_change_data
        sentence = _FRESHNESS.get(change.new_state.name)
        if sentence is None:
            return {}
        asset = change.key.to_user_string()
        return {
            f"freshness {asset} {change.state_change_timestamp}": Alert(
                kind=AlertKind.FRESHNESS,
                factory=self.factory,
                title=f"{asset} is getting old" if change.new_state.name == "WARN" else f"{asset} is too old",
                sentence=sentence,
                time=_time(change.state_change_timestamp),
                asset=asset,
                url=ui_page(self.settings, asset=asset),
            )
        }


_FRESHNESS = {
    "WARN": "Nothing was made for longer than `warn` in the YAML's `freshness`.",
    "FAIL": "Nothing was made for longer than the YAML's `freshness` allows.",
}


def _partition(run: dg.DagsterRun) -> str | None:
    first, last = (run.tags.get(f"dagster/asset_partition_range_{end}") for end in ("start", "end"))
    if first is not None:
        return first if first == last else f"{first} to {last}"
    return run.tags.get("dagster/partition")


def _time(timestamp: float) -> str:
    return datetime.fromtimestamp(timestamp, UTC).isoformat(timespec="seconds")
