"""Where the cases of a benchmark run: each in a fresh process, or in forks of one that has loaded the libraries."""

import json
import os
import subprocess
import sys
import time
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

import psutil

from benchmarks.cases import BenchmarkError, Case

_SAMPLING_INTERVAL = 0.05  # seconds between two samples of the memory
_REPOSITORY = Path(__file__).parents[1]


class Processes(Protocol):
    """Runs cases, one after another."""

    def run(self, case: Case, job: Path, log: Path) -> tuple[int, int]:
        """Run the case that a job's file describes, its output in `log`; its exit status and its peak memory in bytes.

        The peak is 0 where only the process itself can tell it.
        """
        ...


class FreshProcesses:
    """A new process for each case, as figures need that are to be cited."""

    def run(self, case: Case, job: Path, log: Path) -> tuple[int, int]:
        """See `Processes`; the peak is that of the whole process tree."""
        with log.open("wb") as output:
            process = subprocess.Popen(
                [case.python, "-m", "benchmarks.child", str(job)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=_environment(case.threads),
            )
            try:
                peak = _watch(process)
            finally:
                _end(process)
        return process.returncode, peak


class ForkedProcesses(AbstractContextManager["ForkedProcesses"]):
    """Forks of one process that keeps loaded what earlier cases imported: fast, to see that cases work.

    What such a case measures means little: its memory begins with the libraries of all others. A case with another
    interpreter runs in a fresh process.
    """

    def __init__(self) -> None:
        self._server = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.child", "--serve"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=_environment(threads=1),
            text=True,
        )

    def run(self, case: Case, job: Path, log: Path) -> tuple[int, int]:
        """See `Processes`; the peak is the case's own affair."""
        if case.python != sys.executable or case.threads != 1:
            return FreshProcesses().run(case, job, log)
        assert self._server.stdin is not None and self._server.stdout is not None
        with suppress(BrokenPipeError):
            self._server.stdin.write(json.dumps({"job": str(job), "log": str(log)}) + "\n")
            self._server.stdin.flush()
        answer = self._server.stdout.readline()
        if not answer:
            raise BenchmarkError(f"The process that cases are forked from ended at {case.name}; its output says why.")
        return int(answer), 0

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        _end(self._server)
        for stream in (self._server.stdin, self._server.stdout):
            if stream is not None:
                stream.close()


def _environment(threads: int) -> dict[str, str]:
    return {
        **os.environ,
        "OMP_NUM_THREADS": str(threads),
        "PYTHONPATH": str(_REPOSITORY),
        "HF_HUB_OFFLINE": "1",
    }


def _watch(process: subprocess.Popen[bytes]) -> int:
    """Wait for a process; the largest resident memory, in bytes, that it and its children were seen with."""
    peak = 0
    tree = psutil.Process(process.pid)
    while process.poll() is None:
        with suppress(psutil.NoSuchProcess):  # one ended while it was sampled: the next sample has the rest
            members = [tree, *tree.children(recursive=True)]
            peak = max(peak, sum(member.memory_info().rss for member in members))
        time.sleep(_SAMPLING_INTERVAL)
    return peak


def _end(process: subprocess.Popen[Any]) -> None:
    """Leave no process behind when a run is interrupted."""
    if process.poll() is None:
        for member in psutil.Process(process.pid).children(recursive=True):
            member.kill()
        process.kill()
        process.wait()
