"""The schedule that retrains recipes with new training sets."""

from collections.abc import Iterator

import dagster as dg

from caploom.config.factory_config import FactoryConfig
from caploom.errors import CaploomError
from caploom.stages.checkpoint import CHECKPOINT
from dagster_project.jobs import RUN_RECIPE
from dagster_project.resources.factory import FactoryResource
from dagster_project.retraining import growths, retraining_request


def retraining_schedules(config: FactoryConfig) -> list[dg.ScheduleDefinition]:
    """The schedule, running if the YAML retrains recipes at set times; none where nothing is trained."""
    if not CHECKPOINT.is_in(config):
        return []
    settings = config.automation_settings.retrain

    @dg.schedule(
        name="retrain",
        job_name=RUN_RECIPE,
        cron_schedule=settings.cron,
        execution_timezone=config.automation_settings.timezone,
        default_status=(
            dg.DefaultScheduleStatus.RUNNING if settings.when == "schedule" else dg.DefaultScheduleStatus.STOPPED
        ),
        description="Trains and measures the recipes whose training sets are new since they were last trained.",
    )
    def retrain(
        context: dg.ScheduleEvaluationContext, factory: FactoryResource
    ) -> Iterator[dg.RunRequest | dg.SkipReason]:
        try:
            opened = factory.open()
            new = [each for each in growths(opened) if each.is_new]
        except CaploomError as error:
            yield dg.SkipReason(str(error))
            return
        if not new:
            yield dg.SkipReason("No training set is new since its recipe was last trained.")
        for growth in new:
            yield retraining_request(opened, growth)

    return [retrain]
