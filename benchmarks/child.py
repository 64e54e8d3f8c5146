"""Runs one case of a benchmark in a process of its own and measures it.

Needs nothing but the standard library and psutil, because a peer's interpreter runs it too:
`python -m benchmarks.child JOB.json`.
"""

import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
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


def main(path: Path) -> None:
    """Run the job that a file describes and write what came of it to the file that it names."""
    description = json.loads(path.read_text(encoding="utf-8"))
    module, function = description["target"].split(":")
    job = Job(Path(description["folder"]), description["size"], description["options"])
    done: Done = getattr(import_module(module), function)(job)
    report = {
        "count": done.count,
        "wall_s": job.wall_s,
        "cpu_s": job.cpu_s,
        "peak_rss_bytes": peak_rss_bytes(),
        "result": done.result,
        "versions": done.versions,
    }
    Path(description["report"]).write_text(json.dumps(report), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
