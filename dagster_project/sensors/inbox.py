"""The sensor that watches the inbox: what is complete becomes shards, and these are ingested."""

from collections.abc import Sequence
from typing import Any

import dagster as dg

from caploom.alerts.inbox import tell_inbox_faults
from caploom.config.factory_config import FactoryConfig
from caploom.errors import CaploomError
from caploom.inbox.scan import InboxLook, look_into_inbox, unfinished_batches
from dagster_project.cutting import LARGEST_IN_A_TICK, cutting_run
from dagster_project.jobs import CUT_SHARDS, INGEST_SHARDS
from dagster_project.partitions import SHARD, SHARDS, shard_range_tags
from dagster_project.resources.factory import FactoryResource
from dagster_project.tags import automatic_tags

BATCH_TAG = "caploom/batch"
_MOST_RUNS = 10  # of one batch, whatever ended them


def inbox_sensors(config: FactoryConfig, jobs: Sequence[Any]) -> list[dg.SensorDefinition]:
    """The sensor of a factory that has an inbox; it launches some of the factory's jobs."""
    if config.inbox is None:
        return []

    @dg.sensor(
        name="inbox",
        jobs=[job for job in jobs if job.name in (INGEST_SHARDS, CUT_SHARDS)],
        minimum_interval_seconds=config.automatisms.interval_seconds,
        default_status=(
            dg.DefaultSensorStatus.RUNNING if config.automatisms.ingest else dg.DefaultSensorStatus.STOPPED
        ),
        description=f"Cuts what is complete in {', '.join(config.inbox.folders)} into shards and ingests them.",
    )
    def inbox(context: dg.SensorEvaluationContext, factory: FactoryResource) -> dg.SensorResult | dg.SkipReason:
        """Killed between any two steps, the next tick goes on: the store's listings say which shards there are."""
        try:
            opened = factory.open()
        except CaploomError as error:
            return dg.SkipReason(str(error))
        try:
            look = look_into_inbox(opened, largest=LARGEST_IN_A_TICK)
            batches = unfinished_batches(opened)
        except CaploomError as error:
            tell_inbox_faults(opened, [str(error)], again=False)
            return dg.SkipReason(str(error))
        tell_inbox_faults(opened, look.faults)
        for sentence in look.said:
            context.log.info(sentence)
        known = set(context.instance.get_dynamic_partitions(SHARD))
        new = [shard for shards in batches.values() for shard in shards if shard not in known]
        large = [cutting_run(each, f"a large file in the inbox: {each.rpartition(' ')[0]}") for each in look.large]
        if not batches and not large:
            return dg.SensorResult(skip_reason=dg.SkipReason(_told(look)), cursor=look_cursor(look))
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
            cursor=look_cursor(look),
        )

    return [inbox]


def _run_key(instance: dg.DagsterInstance, batch: str) -> str | None:
    """The key of the next run that ingests a batch; None while one is at work, or when so many have failed.

    Under one key Dagster launches one run: asked for again after a tick that was killed, it is launched once.
    """
    runs = instance.get_runs(dg.RunsFilter(tags={BATCH_TAG: batch}))
    if any(not run.is_finished for run in runs) or len(runs) >= _MOST_RUNS:
        return None
    return batch if not runs else f"{batch}, run {len(runs) + 1}"


def look_cursor(look: InboxLook) -> str:
    """What the UI shows beside the sensor: how far it got."""
    return f"waiting: {look.waiting}" + (f"; last cut: {look.cut[-1]}" if look.cut else "")


def _told(look: InboxLook) -> str:
    if look.busy:
        return "Another look at the inbox is at work."
    if look.said:
        return " ".join(look.said)
    return f"{look.waiting:,} files are not complete or gather for a shard." if look.waiting else "Nothing is new."


def _why(shards: list[str]) -> str:
    return f"new images in the inbox: {shards[0]}" + (f" to {shards[-1]}" if len(shards) > 1 else "")
