"""The code location: the asset graph of one factory's YAML, named by the environment variable CAPLOOM_CONFIG.

Without it, the graph is the embedded demo's.
"""

import os
from pathlib import Path

import dagster as dg

from caploom.config.factory_config import DEMO_CONFIG, FactoryConfig, load_config
from dagster_project.assets.ablation_report import ablation_report_asset
from dagster_project.assets.captions import captions_assets
from dagster_project.assets.checkpoint import checkpoint_asset
from dagster_project.assets.raw_pairs import raw_pairs_asset
from dagster_project.assets.retrieval_metrics import retrieval_metrics_asset
from dagster_project.assets.settings import settings_asset
from dagster_project.assets.sheared import sheared_assets
from dagster_project.assets.sheared_captions import sheared_captions_asset
from dagster_project.assets.training_set import training_set_asset
from dagster_project.jobs import factory_jobs
from dagster_project.questions import ask_job
from dagster_project.resources.captioner_models import CaptionerModels
from dagster_project.resources.factory import FactoryResource
from dagster_project.resources.trainer import Trainer
from dagster_project.schedules.failed_rows import retry_schedules
from dagster_project.schedules.retraining import retraining_schedule
from dagster_project.sensors.alerts import alerts_sensors
from dagster_project.sensors.automation import automation_sensors
from dagster_project.sensors.edited_settings import edited_settings
from dagster_project.sensors.grown_training_sets import growth_sensors
from dagster_project.sensors.inbox import inbox_sensors
from dagster_project.sensors.new_images import new_images_sensor
from dagster_project.sharding import cut_shards_job

CONFIG_VARIABLE = "CAPLOOM_CONFIG"


def build_definitions(config: FactoryConfig, resource: FactoryResource) -> dg.Definitions:
    """The definitions of a factory; `resource` opens the same factory inside a run."""
    jobs = [*factory_jobs(config), cut_shards_job, ask_job]
    return dg.Definitions(
        assets=[
            raw_pairs_asset(config),
            *captions_assets(config),
            settings_asset(config),
            *sheared_assets(config),
            sheared_captions_asset(config),
            training_set_asset(config),
            checkpoint_asset(config),
            retrieval_metrics_asset(config),
            ablation_report_asset(config),
        ],
        jobs=jobs,
        sensors=[
            new_images_sensor(jobs),
            edited_settings,
            *inbox_sensors(config, jobs),
            *automation_sensors(config),
            *growth_sensors(config),
            *alerts_sensors(config),
        ],
        schedules=[retraining_schedule(config), *retry_schedules(config)],
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
