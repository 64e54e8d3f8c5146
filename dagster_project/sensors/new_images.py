"""The sensor that notices new rows in the source, splits them into shards and requests their captions."""

from collections.abc import Sequence
from typing import Any

import dagster as dg

from caploom.errors import CaploomError
from caploom.stages.raw_pairs import shards_to_ingest
from caploom.stages.shards import create_new_shards, unread_state
from dagster_project.jobs import CAPTION_SHARDS, CUT_SHARDS
from dagster_project.partitions import SHARD, SHARDS, shard_range_tags
from dagster_project.resources.factory import FactoryResource
from dagster_project.sharding import LARGEST_IN_A_TICK, sharding_run
from dagster_project.tags import automatic_tags

INTERVAL = 60  # seconds
_AT_WORK = dg.RunsFilter(
    job_name=CAPTION_SHARDS,
    statuses=[
        dg.DagsterRunStatus.QUEUED,
        dg.DagsterRunStatus.NOT_STARTED,
        dg.DagsterRunStatus.STARTING,
        dg.DagsterRunStatus.STARTED,
    ],
)


def new_images_sensor(jobs: Sequence[Any]) -> dg.SensorDefinition:
    """The sensor of a factory's source; it launches some of the factory's jobs."""

    @dg.sensor(
        name="new_images",
        jobs=[job for job in jobs if job.name in (CAPTION_SHARDS, CUT_SHARDS)],
        minimum_interval_seconds=INTERVAL,
        description="Splits new rows of the source into shards and captions them; off until switched on.",
    )
    def new_images(
        context: dg.SensorEvaluationContext, factory: FactoryResource
    ) -> dg.SensorResult | dg.RunRequest | dg.SkipReason:
        """Add partitions and request one run for all new shards; after a kill at any step, the next tick continues."""
        try:
            opened = factory.open()
            unread = unread_state(opened)
            if unread is not None and unread.size > LARGEST_IN_A_TICK:
                return sharding_run(unread.version, f"the source is new or was changed: {unread.size / 1e9:,.1f} GB")
            create_new_shards(opened)
            new = shards_to_ingest(opened)
        except CaploomError as error:
            return dg.SkipReason(str(error))
        if not new:
            return dg.SkipReason("The source has no new rows.")
        known = set(context.instance.get_dynamic_partitions(SHARD))
        unknown = [shard for shard in new if shard not in known]
        if not unknown and context.instance.get_runs(_AT_WORK, limit=1):
            return dg.SkipReason(f"{', '.join(new[:3])}: being ingested.")
        return dg.SensorResult(
            dynamic_partitions_requests=[SHARDS.build_add_request(unknown)] if unknown else [],
            # A run is launched only once per key, whatever became of it.
            run_requests=[
                dg.RunRequest(
                    run_key=f"{new[0]}..{new[-1]}",
                    job_name=CAPTION_SHARDS,
                    tags={
                        **shard_range_tags(new[0], new[-1]),
                        **automatic_tags(f"new rows of the source: {new[0]} to {new[-1]}"),
                    },
                )
            ],
        )

    return new_images
