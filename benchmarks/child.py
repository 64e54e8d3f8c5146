"""Runs one case of a benchmark in a process of its own and measures it.

Needs nothing but the standard library and psutil, because a peer's interpreter runs it too:
`python -m benchmarks.child JOB.json`. With `--serve` instead of a file it reads a line for each job and runs it in a
fork of itself, see `processes.ForkedProcesses`.
"""

import json
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

import psutil


@dataclass
class Job:
    """What a case is given: the folder of the inputs, the size, and its own options.

    What stands before and after `measured` (imports, loading a model, warming it up) is not measured.
    """

    folder: Path
    size: int
    options: dict[str, Any]
    wall_s: float = 0.0
    cpu_s: float = 0.0

    @contextmanager
    def measured(self) -> Iterator[None]:
        """Measure this part: wall seconds, and CPU seconds of this process and all that it started."""
        cpu, wall = tree_cpu_seconds(), time.perf_counter()
        yield
        self.wall_s += time.perf_counter() - wall
        self.cpu_s += tree_cpu_seconds() - cpu


@dataclass
class Done:
    """What a case gives back: how many units it worked through, and what the benchmark compares.

    `result` must be JSON; `versions` are of packages that only this case's interpreter has.
    """

    count: int
    result: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)


def tree_cpu_seconds() -> float:
    """User and system seconds of this process, of its children that ended, and of those that live."""
    ended = os.times()  # in hundredths of a second, so only for the children
    seconds = time.process_time() + ended.children_user + ended.children_system
    for child in psutil.Process().children(recursive=True):
        try:
            times = child.cpu_times()
        except psutil.NoSuchProcess:  # it ended in this moment and is counted with the ended ones next time
            continue
        seconds += times.user + times.system
    return seconds


def peak_rss_bytes() -> int:
    """The largest resident memory that this process had; 0 where the system doesn't tell."""
    status = Path("/proc/self/status")
    if not status.is_file():
        return 0
    # Not ru_maxrss: that one goes over from the parent when a process is started.
    lines = (line.split() for line in status.read_text(encoding="utf-8").splitlines())
    return next((int(words[1]) * 1024 for words in lines if words[0] == "VmHWM:"), 0)


def _function_of(description: dict[str, Any]) -> Callable[[Job], Done]:
    module, function = description["target"].split(":")
    found: Callable[[Job], Done] = getattr(import_module(module), function)
    return found


def main(path: Path) -> None:
    """Run the job that a file describes and write what came of it to the file that it names."""
    description = json.loads(path.read_text(encoding="utf-8"))
    function = _function_of(description)
    job = Job(Path(description["folder"]), description["size"], description["options"])
    done = function(job)
    report = {
        "count": done.count,
        "wall_s": job.wall_s,
        "cpu_s": job.cpu_s,
        "peak_rss_bytes": peak_rss_bytes(),
        "result": done.result,
        "versions": done.versions,
    }
    Path(description["report"]).write_text(json.dumps(report), encoding="utf-8")


def serve() -> None:
    """For each line of the input run its job in a fork, and print the exit status.

    The job's module is imported here, so that no later fork imports the same libraries again.
    """
    for line in sys.stdin:
        request = json.loads(line)
        with suppress(Exception):  # the fork meets it again, and its log has it
            _function_of(json.loads(Path(request["job"]).read_text(encoding="utf-8")))
        pid = os.fork()
        if pid == 0:
            _run_in_fork(Path(request["job"]), request["log"])
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)


def _run_in_fork(job: Path, log: str) -> None:
    """Run a job with its output in a file, and end this process without what only its parent may tidy up."""
    status = 1
    try:
        output = os.open(log, os.O_WRONLY | os.O_CREAT)
        for stream in (1, 2):
            os.dup2(output, stream)
        main(job)
        status = 0
    except BaseException:  # noqa: BLE001 - even an exit must not go on as the server
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(status)


if __name__ == "__main__":
    if sys.argv[1] == "--serve":
        serve()
    else:
        main(Path(sys.argv[1]))
