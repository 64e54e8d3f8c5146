"""The sensor that notices new rows in the source, cuts them into shards and asks for their captions."""

import dagster as dg

from caploom.errors import CaploomError
from caploom.readers.shards import cut_new_shards, shard_names
from dagster_project.jobs import CAPTION_SHARDS
from dagster_project.partitions import SHARD, SHARDS, shard_range_tags
from dagster_project.resources.factory import FactoryResource

INTERVAL = 60  # seconds


@dg.sensor(
    job_name=CAPTION_SHARDS,
    minimum_interval_seconds=INTERVAL,
    description="Cuts new rows of the source into shards and captions them; off until switched on.",
)
def new_images(context: dg.SensorEvaluationContext, factory: FactoryResource) -> dg.SensorResult | dg.SkipReason:
    """Add a partition and request one run for all new shards. Killed between any two steps, the next tick goes on."""
    try:
        opened = factory.open()
        cut_new_shards(opened)
    except CaploomError as error:
        return dg.SkipReason(str(error))
    known = set(context.instance.get_dynamic_partitions(SHARD))
    new = [shard for shard in shard_names(opened) if shard not in known]
    if not new:
        return dg.SkipReason("The source has no new rows.")
    return dg.SensorResult(
        dynamic_partitions_requests=[SHARDS.build_add_request(new)],
        run_requests=[dg.RunRequest(run_key=f"{new[0]}..{new[-1]}", tags=shard_range_tags(new[0], new[-1]))],
    )
