"""The Dagster instance of a factory, in the factory's store, so that the UI shows the results of headless runs."""

import os
from pathlib import Path

import dagster as dg

from caploom.common.locks import one_at_a_time
from caploom.config.factory_config import FactoryConfig
from caploom.storage.opening import open_store
from caploom.storage.writing import write_atomically

_SETTINGS = b"""\
telemetry: {enabled: false}
nux: {enabled: false}
concurrency:
  pools:
    default_limit: 1
    granularity: op
run_launcher:
  module: dagster_project.run_launcher
  class: WatchedRunLauncher
# A run whose process was killed is detected and launched again; a run that failed by itself is not.
run_monitoring:
  enabled: true
  poll_interval_seconds: 30
  start_timeout_seconds: 180
  free_slots_after_run_end_seconds: 30
# A restart of the code server does not fail the runs in the queue.
run_coordinator:
  module: dagster.core.run_coordinator
  class: QueuedRunCoordinator
  config: {max_user_code_failure_retries: 20, user_code_failure_retry_delay: 5}
run_retries:
  enabled: true
  max_retries: 3
  retry_on_asset_or_op_failure: false
"""


_FILE = "dagster.yaml"


def instance_home(config: FactoryConfig) -> Path:
    """The instance's folder, created with its settings when missing (an existing file is the user's and stays)."""
    home = open_store(config.store).root / "dagster"
    home.mkdir(exist_ok=True)
    if not (home / _FILE).exists():
        with one_at_a_time(home / ".lock", f"{home}: another process is creating it; waiting for it."):
            if not (home / _FILE).exists():
                _create(home)
    return home


def _create(home: Path) -> None:
    """Create the databases before the settings: services that find none all create them at once, and then fail."""
    waiting = home / f".{_FILE}"
    write_atomically(waiting, _SETTINGS)
    with dg.DagsterInstance.from_config(str(home), waiting.name):
        waiting.rename(home / _FILE)


def open_instance(config: FactoryConfig) -> dg.DagsterInstance:
    """The factory's instance; DAGSTER_HOME, when set, names another."""
    os.environ.setdefault("DAGSTER_HOME", str(instance_home(config)))
    return dg.DagsterInstance.get()
