"""The sensor that keeps the source's shards there as partitions; it is always on, and captions nothing."""

import json
import time
from collections.abc import Sequence
from typing import Any

import dagster as dg

from caploom.config.factory_config import FactoryConfig
from caploom.errors import CaploomError
from caploom.stages.shards import unread_state
from dagster_project.jobs import CUT_SHARDS
from dagster_project.partitions import SHARDS
from dagster_project.resources.factory import FactoryResource
from dagster_project.sharding import LARGEST_IN_A_TICK, cut_new_shards, sharding_run

INTERVAL = 30  # seconds
_REST = 20
"""After a look at the source the sensor rests for so many times as long: a folder of a million files takes long."""


def new_shards_sensors(config: FactoryConfig, jobs: Sequence[Any]) -> list[dg.SensorDefinition]:
    """The sensor of a factory that has a source; an inbox has one of its own."""
    if config.pairs is None:
        return []

    @dg.sensor(
        name="new_shards",
        jobs=[job for job in jobs if job.name == CUT_SHARDS],
        minimum_interval_seconds=INTERVAL,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Splits new rows of the source into shards, so that there is something to materialize.",
    )
    def new_shards(context: dg.SensorEvaluationContext, factory: FactoryResource) -> dg.SensorResult | dg.SkipReason:
        rests_until = json.loads(context.cursor)["rests_until"] if context.cursor else 0.0
        if time.time() < rests_until:
            return dg.SkipReason("The last look at the source took long; the next one is later.")
        started = time.time()
        try:
            opened = factory.open()
            unread = unread_state(opened)
            if unread is not None and unread.size > LARGEST_IN_A_TICK:
                why = f"the source is new or was changed: {unread.size / 1e9:,.1f} GB"
                return dg.SensorResult(run_requests=[sharding_run(unread.version, why)])
            missing = cut_new_shards(opened, context.instance)
        except CaploomError as error:
            return dg.SkipReason(str(error))
        cursor = json.dumps({"rests_until": time.time() + _REST * (time.time() - started)})
        if not missing:
            return dg.SensorResult(skip_reason=dg.SkipReason("The source has no new rows."), cursor=cursor)
        return dg.SensorResult(dynamic_partitions_requests=[SHARDS.build_add_request(missing)], cursor=cursor)

    return [new_shards]
