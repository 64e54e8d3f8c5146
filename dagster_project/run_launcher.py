"""Dagster's default launcher of runs, which also says whether the process that carries a run out is alive.

Without that a run whose code server was killed, and then the run's process as well, would count as at work for ever and
keep its place in the pool.
"""

import json

import dagster as dg
import psutil
from dagster._core.launcher import CheckRunHealthResult, DefaultRunLauncher, WorkerStatus
from dagster._core.storage.tags import GRPC_INFO_TAG

_HERE = {"localhost", "127.0.0.1", "::1"}
# The code server starts the process of a run by Python's multiprocessing: another program has taken the number over
# when its command does not say so. Times of start would say it more precisely, but they move with the clock.
_OF_A_RUN = "multiprocessing"


class WatchedRunLauncher(DefaultRunLauncher):
    """Runs on the code server, as by default; Dagster's run monitoring finds those whose process is gone.

    Only runs of a code server on this machine can be watched; of others it says that they are at work, as before.
    """

    @property
    def supports_check_run_worker_health(self) -> bool:
        """That runs are watched."""
        return True

    def check_run_worker_health(self, run: dg.DagsterRun) -> CheckRunHealthResult:
        """Whether the process of a started run is alive."""
        process = self._process_of(run) if _is_here(run) else None
        if process is None or _is_alive(process):
            return CheckRunHealthResult(WorkerStatus.RUNNING)
        return CheckRunHealthResult(WorkerStatus.FAILED, f"process {process} is gone; it was killed")

    def _process_of(self, run: dg.DagsterRun) -> int | None:
        """The number of the run's process, as its code server wrote it down; None until then."""
        events = self._instance.all_logs(run.run_id, of_type=dg.DagsterEventType.ENGINE_EVENT)
        for event in events:
            said = event.dagster_event.event_specific_data if event.dagster_event else None
            if event.step_key is None and (pid := getattr(said, "metadata", {}).get("pid")) is not None:
                return int(pid.text)
        return None


def _is_here(run: dg.DagsterRun) -> bool:
    server = json.loads(run.tags.get(GRPC_INFO_TAG, "{}"))
    return server.get("host") in _HERE


def _is_alive(pid: int) -> bool:
    try:
        process = psutil.Process(pid)
        return process.status() != psutil.STATUS_ZOMBIE and _OF_A_RUN in " ".join(process.cmdline())
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:  # another user's: not the run's, which is ours, unless the daemon runs as another one
        return True
