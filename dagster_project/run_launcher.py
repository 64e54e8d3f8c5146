"""Dagster's default run launcher, which can also check whether the process of a run is alive.

Without that, a run whose code server was killed, and then the run's process as well, would count as running forever and
keep its slot in the pool.
"""

import json
from collections.abc import Mapping
from typing import Any

import dagster as dg
import psutil
from dagster._core.errors import DagsterUserCodeUnreachableError
from dagster._core.launcher import CheckRunHealthResult, DefaultRunLauncher, WorkerStatus
from dagster._core.storage.tags import GRPC_INFO_TAG
from dagster._grpc.client import DagsterGrpcClient
from dagster._grpc.types import GetCurrentRunsResult
from dagster._serdes import deserialize_value

_HERE = {"localhost", "127.0.0.1", "::1"}
# The code server starts a run's process by Python's multiprocessing: if its command does not show that, another program
# has taken over the number. Start times would be more precise, but they shift with the clock.
_OF_A_RUN = "multiprocessing"


class WatchedRunLauncher(DefaultRunLauncher):
    """Runs on the code server, as by default; Dagster's run monitoring finds runs whose process is gone.

    A code server on another machine (or in another container) is asked for its runs; without an answer, a run counts
    as running.
    """

    @property
    def supports_check_run_worker_health(self) -> bool:
        """Whether runs can be monitored: always."""
        return True

    def check_run_worker_health(self, run: dg.DagsterRun) -> CheckRunHealthResult:
        """Whether the process of a started run is alive."""
        server = json.loads(run.tags.get(GRPC_INFO_TAG, "{}"))
        if server.get("host") not in _HERE:
            return _health_from_server(run, server)
        process = self._process_of(run)
        if process is None or _is_alive(process):
            return CheckRunHealthResult(WorkerStatus.RUNNING)
        return CheckRunHealthResult(WorkerStatus.FAILED, f"process {process} is gone; it was killed")

    def _process_of(self, run: dg.DagsterRun) -> int | None:
        """The number of the run's process, as recorded by its code server; None until then."""
        events = self._instance.all_logs(run.run_id, of_type=dg.DagsterEventType.ENGINE_EVENT)
        for event in events:
            answer = event.dagster_event.event_specific_data if event.dagster_event else None
            if event.step_key is None and (pid := getattr(answer, "metadata", {}).get("pid")) is not None:
                return int(pid.text)
        return None


def _health_from_server(run: dg.DagsterRun, server: Mapping[str, Any]) -> CheckRunHealthResult:
    """A restarted server has none of its earlier runs: their processes died with its container."""
    if not server.get("port"):
        return CheckRunHealthResult(WorkerStatus.RUNNING)
    client = DagsterGrpcClient(host=server["host"], port=server["port"], use_ssl=bool(server.get("use_ssl")))
    try:
        answer = deserialize_value(client.get_current_runs(), GetCurrentRunsResult)
    except DagsterUserCodeUnreachableError:
        return CheckRunHealthResult(WorkerStatus.RUNNING)
    if answer.serializable_error_info is not None or run.run_id in answer.current_runs:
        return CheckRunHealthResult(WorkerStatus.RUNNING)
    return CheckRunHealthResult(WorkerStatus.FAILED, f"the code server at {server['host']} no longer has it")


def _is_alive(pid: int) -> bool:
    try:
        process = psutil.Process(pid)
        return process.status() != psutil.STATUS_ZOMBIE and _OF_A_RUN in " ".join(process.cmdline())
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:  # another user's process: not the run's, unless the daemon runs as another user
        return True
