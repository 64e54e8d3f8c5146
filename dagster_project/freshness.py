"""The YAML's `freshness` as Dagster's policies; Dagster's own daemon evaluates them, twice a minute."""

import dagster as dg

from caploom.config.factory_config import FactoryConfig
from caploom.config.freshness import Window


def freshness_of(config: FactoryConfig, stage: str) -> dg.FreshnessPolicy | None:
    """The policy of a stage's assets; None where the YAML sets none."""
    window: Window | None = getattr(config.freshness, stage, None)
    if window is None:
        return None
    return dg.FreshnessPolicy.time_window(fail_window=window.fail, warn_window=window.warn)
