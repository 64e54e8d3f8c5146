"""The sensor that watches the inbox: complete files become shards, and these are ingested."""

from collections.abc import Sequence
from typing import Any

import dagster as dg

from caploom.alerts.inbox import record_inbox_faults
from caploom.config.factory_config import FactoryConfig
from caploom.errors import CaploomError
from caploom.inbox.scan import InboxScan, scan_inbox, unfinished_batches
from dagster_project.jobs import CUT_SHARDS, INGEST_SHARDS
from dagster_project.partitions import SHARD, SHARDS, shard_range_tags
from dagster_project.resources.factory import FactoryResource
from dagster_project.sharding import LARGEST_IN_A_TICK, sharding_run
from dagster_project.tags import automatic_tags

BATCH_TAG = "caploom/batch"
_MOST_RUNS = 10  # per batch, whatever ended them


def inbox_sensors(config: FactoryConfig, jobs: Sequence[Any]) -> list[dg.SensorDefinition]:
    """The sensor of a factory that has an inbox; it launches some of the factory's jobs."""
    if config.inbox is None:
        return []

    @dg.sensor(
        name="inbox",
        jobs=[job for job in jobs if job.name in (INGEST_SHARDS, CUT_SHARDS)],
        minimum_interval_seconds=config.automation_settings.interval_seconds,
        default_status=(
            dg.DefaultSensorStatus.RUNNING if config.automation_settings.ingest else dg.DefaultSensorStatus.STOPPED
        ),
        description=f"Splits the complete files of {', '.join(config.inbox.folders)} into shards and ingests them.",
    )
    def inbox(context: dg.SensorEvaluationContext, factory: FactoryResource) -> dg.SensorResult | dg.SkipReason:
        """A tick killed between any two steps is continued by the next: the store's listings say which shards exist."""
        try:
            opened = factory.open()
        except CaploomError as error:
            return dg.SkipReason(str(error))
        try:
            scan = scan_inbox(opened, largest=LARGEST_IN_A_TICK)
            batches = unfinished_batches(opened)
        except CaploomError as error:
            record_inbox_faults(opened, [str(error)], again=False)
            return dg.SkipReason(str(error))
        record_inbox_faults(opened, scan.faults)
        for sentence in scan.messages:
            context.log.info(sentence)
        known = set(context.instance.get_dynamic_partitions(SHARD))
        new = [shard for shards in batches.values() for shard in shards if shard not in known]
        large = [sharding_run(each, f"a large file in the inbox: {each.rpartition(' ')[0]}") for each in scan.large]
        if not batches and not large:
            return dg.SensorResult(skip_reason=dg.SkipReason(_skip_message(scan)), cursor=scan_cursor(scan))
        return dg.SensorResult(
            dynamic_partitions_requests=[SHARDS.build_add_request(new)] if new else [],
            run_requests=[
                *large,
                *(
                    dg.RunRequest(
                        run_key=key,
                        job_name=INGEST_SHARDS,
                        tags={
                            **shard_range_tags(shards[0], shards[-1]),
                            **automatic_tags(_why(shards)),
                            BATCH_TAG: batch,
                        },
                    )
                    for batch, shards in batches.items()
                    if (key := _run_key(context.instance, batch)) is not None
                ),
            ],
            cursor=scan_cursor(scan),
        )

    return [inbox]


def _run_key(instance: dg.DagsterInstance, batch: str) -> str | None:
    """The key of the next run that ingests a batch; None while one is running, or when too many have failed.

    Dagster launches one run per key: a run that is requested again after a tick was killed is launched once.
    """
    runs = instance.get_runs(dg.RunsFilter(tags={BATCH_TAG: batch}))
    if any(not run.is_finished for run in runs) or len(runs) >= _MOST_RUNS:
        return None
    return batch if not runs else f"{batch}, run {len(runs) + 1}"


def scan_cursor(scan: InboxScan) -> str:
    """The cursor, which the UI shows with the sensor: how far it got."""
    return f"waiting: {scan.waiting}" + (f"; last shard: {scan.new_shards[-1]}" if scan.new_shards else "")


def _skip_message(scan: InboxScan) -> str:
    if scan.busy:
        return "Another scan of the inbox is running."
    if scan.messages:
        return " ".join(scan.messages)
    return f"{scan.waiting:,} files are incomplete or wait for a full shard." if scan.waiting else "Nothing is new."


def _why(shards: list[str]) -> str:
    return f"new images in the inbox: {shards[0]}" + (f" to {shards[-1]}" if len(shards) > 1 else "")
