"""The sensor that notices edits of the YAML, so that the UI shows what they made stale."""

import dagster as dg

from caploom.errors import CaploomError
from dagster_project.resources.factory import FactoryResource
from dagster_project.settings import observe_settings

INTERVAL = 30  # seconds


@dg.sensor(
    minimum_interval_seconds=INTERVAL,
    default_status=dg.DefaultSensorStatus.RUNNING,  # it runs nothing: it only observes
    description="Notices edits of the YAML's recipes, so that what depends on them is shown stale.",
)
def edited_settings(context: dg.SensorEvaluationContext, factory: FactoryResource) -> dg.SkipReason:
    """Observe the changed parts of the YAML. It requests no run."""
    try:
        changed = observe_settings(context.instance, factory.open())
    except CaploomError as error:
        return dg.SkipReason(str(error))
    return dg.SkipReason(f"Edited: {', '.join(changed)}." if changed else "The settings are unchanged.")
