"""The sensors that evaluate the assets' automation conditions, one per automation, so that each has its switch."""

from functools import partial

import dagster as dg

from caploom.report.make import ABLATION_REPORT
from caploom.stages.captions import CAPTIONS
from caploom.stages.sheared import SHEARED, SHEARED_CAPTIONS
from caploom.stages.training_set import TRAINING_SET
from dagster_project.assets.dependencies import FactoryAssets
from dagster_project.tags import automatic_tags


def automation_sensors(assets: FactoryAssets) -> list[dg.AutomationConditionSensorDefinition]:
    """One per stage that follows new data; the YAML decides which are on at first, and the UI switches each."""
    automation_settings = assets.config.automation_settings
    sensor = partial(_sensor, automation_settings.interval_seconds)
    sensors = [
        sensor(
            "merge_new_captions",
            assets.select(SHEARED, SHEARED_CAPTIONS, TRAINING_SET),
            on=automation_settings.merge,
            why="there are new images or captions",
            description="Shears new captions and makes new versions of the training sets they belong to.",
        ),
    ]
    if assets.has(ABLATION_REPORT):
        sensors.append(
            sensor(
                "report_new_measurements",
                assets.select(ABLATION_REPORT),
                on=automation_settings.report,
                why="a recipe was measured",
                description="Writes the report again when a recipe was measured.",
            )
        )
    if assets.config.captioners:
        sensors.append(
            sensor(
                "caption_new_shards",
                assets.select(CAPTIONS),
                on=automation_settings.caption,
                why="a new shard has no captions yet",
                description="Lets every captioner caption the shards that it has not captioned yet.",
            )
        )
    return sensors


def _sensor(
    interval: int, name: str, target: dg.AssetSelection, *, on: bool, why: str, description: str
) -> dg.AutomationConditionSensorDefinition:
    return dg.AutomationConditionSensorDefinition(
        name,
        target=target,
        default_status=dg.DefaultSensorStatus.RUNNING if on else dg.DefaultSensorStatus.STOPPED,
        minimum_interval_seconds=interval,
        run_tags=automatic_tags(why),
        description=description,
    )
