"""The sensors that evaluate the assets' automation conditions, one per automation, so that each has its switch."""

from functools import partial

import dagster as dg

from caploom.config.factory_config import FactoryConfig
from dagster_project.assets.ablation_report import ABLATION_REPORT
from dagster_project.assets.captions import captions_key
from dagster_project.assets.sheared import sheared_key, shears_of
from dagster_project.assets.sheared_captions import SHEARED_CAPTIONS
from dagster_project.assets.training_set import TRAINING_SET
from dagster_project.tags import automatic_tags


def automation_sensors(config: FactoryConfig) -> list[dg.AutomationConditionSensorDefinition]:
    """One per stage that follows new data; the YAML decides which are on at first, and the UI switches each."""
    automation_settings = config.automation_settings
    sensor = partial(_sensor, automation_settings.interval_seconds)
    sheared = [sheared_key(captioner) for captioner in config.captioners if shears_of(config, captioner)]
    sensors = [
        sensor(
            "merge_new_captions",
            dg.AssetSelection.assets(*sheared, SHEARED_CAPTIONS, TRAINING_SET),
            on=automation_settings.merge,
            why="there are new images or captions",
            description="Shears new captions and makes new versions of the training sets they belong to.",
        ),
        sensor(
            "report_new_measurements",
            dg.AssetSelection.assets(ABLATION_REPORT),
            on=automation_settings.report,
            why="a recipe was measured",
            description="Writes the report again when a recipe was measured.",
        ),
    ]
    if config.captioners:
        captions = dg.AssetSelection.assets(*(captions_key(captioner) for captioner in config.captioners))
        sensors.append(
            sensor(
                "caption_new_shards",
                captions,
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
