"""The schedule that retries the images that captioners failed on."""

from collections.abc import Iterator

import dagster as dg

from caploom.config.factory_config import FactoryConfig
from caploom.errors import CaploomError
from caploom.stages.captions import CAPTIONS
from caploom.stages.retry_failures import shards_to_retry
from dagster_project.jobs import CAPTION_SHARDS
from dagster_project.layout import asset_key
from dagster_project.partitions import SHARD, shard_range_tags
from dagster_project.resources.factory import FactoryResource
from dagster_project.tags import automatic_tags, captioner_tags

_OFF_CRON = "0 2 * * *"  # for a schedule that is switched off in the YAML


def retry_schedules(config: FactoryConfig) -> list[dg.ScheduleDefinition]:
    """The schedule of a factory that has captioners; off if the YAML says so."""
    settings = config.automation_settings.retry_failures
    if not config.captioners:
        return []

    @dg.schedule(
        name="retry_failed_rows",
        job_name=CAPTION_SHARDS,
        cron_schedule=settings.cron if settings else _OFF_CRON,
        execution_timezone=config.automation_settings.timezone,
        default_status=dg.DefaultScheduleStatus.RUNNING if settings else dg.DefaultScheduleStatus.STOPPED,
        description="Retries images that captioners failed on, each up to its captioner's max_attempts.",
    )
    def retry_failed_rows(
        context: dg.ScheduleEvaluationContext, factory: FactoryResource
    ) -> Iterator[dg.RunRequest | dg.SkipReason]:
        try:
            opened = factory.open()
            found = {name: shards_to_retry(opened, name) for name in opened.config.captioners}
        except CaploomError as error:
            yield dg.SkipReason(str(error))
            return
        order = list(context.instance.get_dynamic_partitions(SHARD))
        most = settings.shards_per_run if settings else len(order)
        asked = False
        for captioner, failures in found.items():
            shards = [shard for shard in order if failures.get(shard)][:most]
            for first, last in _neighbours(order, shards):
                asked = True
                images = sum(failures.get(shard, 0) for shard in order[first : last + 1])
                key = asset_key(CAPTIONS, captioner)
                yield dg.RunRequest(
                    asset_selection=[key],
                    run_config=dg.RunConfig(ops={key.to_python_identifier(): {"config": {"retry_failures": True}}}),
                    tags={
                        **shard_range_tags(order[first], order[last]),
                        **captioner_tags([captioner]),
                        **automatic_tags(f"{captioner} failed on {images:,} images that may be retried"),
                    },
                )
        if not asked:
            yield dg.SkipReason("There is no failed image that may be retried.")

    return [retry_failed_rows]


def _neighbours(order: list[str], shards: list[str]) -> Iterator[tuple[int, int]]:
    """First and last index of each block of adjacent shards: a run takes a range."""
    positions = [order.index(shard) for shard in shards]
    start = 0
    for end in range(1, len(positions) + 1):
        if end == len(positions) or positions[end] != positions[end - 1] + 1:
            yield positions[start], positions[end - 1]
            start = end
