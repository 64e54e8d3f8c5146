"""Headless runs, one at a time per factory, and what a killed one left behind in Dagster's own records."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg

from caploom.common.locks import one_at_a_time

HEADLESS_TAG = "caploom/headless"

_UNFINISHED = [dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING]


@contextmanager
def only_headless_run(home: Path, instance: dg.DagsterInstance) -> Iterator[None]:
    """Wait for another headless run of this factory; after that, unfinished ones are dead and are marked as ended."""
    busy = "Another headless run of this factory is in progress; waiting for it."
    with one_at_a_time(home / "headless.lock", busy):
        _end_left_over_runs(instance)
        yield


def _end_left_over_runs(instance: dg.DagsterInstance) -> None:
    """A killed process cannot end its run, whose slot in a pool would be taken forever."""
    for run in instance.get_runs(dg.RunsFilter(statuses=_UNFINISHED, tags={HEADLESS_TAG: "true"})):
        instance.report_run_failed(run, message="The process of this headless run was killed.")
        instance.event_log_storage.free_concurrency_slots_for_run(run.run_id)
