"""The sensor that retrains a recipe when its training set has grown enough."""

import dagster as dg

from caploom.config.factory_config import FactoryConfig
from caploom.errors import CaploomError
from caploom.stages.checkpoint import CHECKPOINT
from dagster_project.jobs import RUN_RECIPE
from dagster_project.resources.factory import FactoryResource
from dagster_project.retraining import growths, retraining_request, why


def growth_sensors(config: FactoryConfig) -> list[dg.SensorDefinition]:
    """The sensor, running if the YAML retrains recipes by growth; none where nothing is trained."""
    if not CHECKPOINT.is_in(config):
        return []
    settings = config.automation_settings.retrain

    @dg.sensor(
        name="retrain_when_grown",
        job_name=RUN_RECIPE,
        minimum_interval_seconds=config.automation_settings.interval_seconds,
        default_status=(
            dg.DefaultSensorStatus.RUNNING if settings.when == "growth" else dg.DefaultSensorStatus.STOPPED
        ),
        description=f"Trains and measures a recipe when its training set has grown by {settings.growth_percent:g} %.",
    )
    def retrain_when_grown(
        context: dg.SensorEvaluationContext, factory: FactoryResource
    ) -> dg.SensorResult | dg.SkipReason:
        try:
            opened = factory.open()
            found = list(growths(opened))
        except CaploomError as error:
            return dg.SkipReason(str(error))
        wanted = opened.config.automation_settings.retrain.growth_percent
        grown = [each for each in found if each.is_new and each.percent >= wanted]
        if not grown:
            reasons = "; ".join(why(each) for each in found if each.is_new) or "no training set is new"
            return dg.SkipReason(f"None has grown by {wanted:g} %: {reasons}.")
        return dg.SensorResult(run_requests=[retraining_request(opened, each) for each in grown])

    return [retrain_when_grown]
