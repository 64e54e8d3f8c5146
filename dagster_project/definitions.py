"""The code location: the asset graph of one factory's YAML, named by the environment variable CAPLOOM_CONFIG.

Without it, the graph is the embedded demo's.
"""

import os
from pathlib import Path

import dagster as dg

from caploom.config.factory_config import DEMO_CONFIG, FactoryConfig, load_config
from dagster_project.assets import (
    ablation_report,
    captions,
    checkpoint,
    raw_pairs,
    retrieval_metrics,
    sheared,
    sheared_captions,
    training_set,
)
from dagster_project.assets.declared import declared_assets
from dagster_project.assets.dependencies import FactoryAssets
from dagster_project.everything import everything_job
from dagster_project.jobs import factory_jobs
from dagster_project.questions import ask_job
from dagster_project.resources.captioner_models import CaptionerModels
from dagster_project.resources.factory import FactoryResource
from dagster_project.resources.trainer import Trainer
from dagster_project.schedules.failed_rows import retry_schedules
from dagster_project.schedules.retraining import retraining_schedules
from dagster_project.sensors.alerts import alerts_sensors
from dagster_project.sensors.automation import automation_sensors
from dagster_project.sensors.edited_settings import edited_settings
from dagster_project.sensors.grown_training_sets import growth_sensors
from dagster_project.sensors.inbox import inbox_sensors
from dagster_project.sensors.new_images import new_images_sensor
from dagster_project.sensors.new_shards import new_shards_sensors
from dagster_project.settings import settings_asset
from dagster_project.sharding import cut_shards_job
from dagster_project.tries import try_job

CONFIG_VARIABLE = "CAPLOOM_CONFIG"

_BY_HAND = tuple(
    module.BY_HAND
    for module in (
        raw_pairs,
        captions,
        sheared,
        sheared_captions,
        training_set,
        checkpoint,
        retrieval_metrics,
        ablation_report,
    )
)


def factory_assets(config: FactoryConfig) -> FactoryAssets:
    """The assets that a factory's steps are."""
    return FactoryAssets(config, by_hand=[each.stage.kind for each in _BY_HAND])


def build_definitions(config: FactoryConfig, resource: FactoryResource) -> dg.Definitions:
    """The definitions of a factory; `resource` opens the same factory inside a run."""
    assets = factory_assets(config)
    everything = everything_job(config, assets, lambda: build_definitions(config, resource))
    jobs = [everything, *factory_jobs(assets), cut_shards_job, ask_job, try_job]
    return dg.Definitions(
        assets=[
            settings_asset(config),
            *(asset for each in _BY_HAND if assets.has(each.stage) for asset in each.make(assets)),
            *declared_assets(assets),
        ],
        jobs=jobs,
        sensors=[
            *new_shards_sensors(config, jobs),
            new_images_sensor(jobs),
            edited_settings,
            *inbox_sensors(config, jobs),
            *automation_sensors(assets),
            *growth_sensors(config),
            *alerts_sensors(config),
        ],
        schedules=[*retraining_schedules(config), *retry_schedules(config)],
        resources={
            "factory": resource,
            "captioner_models": CaptionerModels(),
            "trainer": Trainer(),
        },
    )


def definitions_of(path: Path, *, seeds: list[int] | None = None) -> dg.Definitions:
    """The definitions of a YAML file; raises `ConfigError`."""
    resource = FactoryResource(config_path=str(path.resolve()), seeds=seeds)
    return build_definitions(load_config(path, seeds=seeds), resource)


def configured_path() -> Path:
    """The YAML that this code location serves."""
    return Path(os.environ.get(CONFIG_VARIABLE) or DEMO_CONFIG)


@dg.definitions
def defs() -> dg.Definitions:
    """The definitions that `workspace.yaml` loads."""
    return definitions_of(configured_path())
