"""The sensor that notices new rows in the source, cuts them into shards and asks for their captions."""

import dagster as dg

from caploom.errors import CaploomError
from caploom.readers.ingest import shards_to_ingest
from caploom.readers.shards import cut_new_shards
from dagster_project.jobs import CAPTION_SHARDS
from dagster_project.partitions import SHARD, SHARDS, shard_range_tags
from dagster_project.resources.factory import FactoryResource
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


@dg.sensor(
    job_name=CAPTION_SHARDS,
    minimum_interval_seconds=INTERVAL,
    description="Cuts new rows of the source into shards and captions them; off until switched on.",
)
def new_images(context: dg.SensorEvaluationContext, factory: FactoryResource) -> dg.SensorResult | dg.SkipReason:
    """Add partitions and request one run for all new shards. Killed between any two steps, the next tick goes on."""
    try:
        opened = factory.open()
        cut_new_shards(opened)
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
        # A run that was launched under a key is not launched again, whatever became of it.
        run_requests=[
            dg.RunRequest(
                run_key=f"{new[0]}..{new[-1]}",
                tags={
                    **shard_range_tags(new[0], new[-1]),
                    **automatic_tags(f"new rows of the source: {new[0]} to {new[-1]}"),
                },
            )
        ],
    )
