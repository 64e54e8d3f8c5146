"""Starts the trainer in a process of its own, or in several, follows it, and reads back its result.

The trainer's memory, crashes and signals stay in its processes: the factory sees a result or one sentence.
"""

import shutil
import signal
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from caploom.common.locks import one_at_a_time
from caploom.errors import TrainingError
from caploom.training.job import TrainingEvent, TrainingJob, TrainingResult
from caploom.training.node import Node, started
from caploom.training.process import ERROR, EVENTS, JOB, LOCK, OWNER, RESULT

POLL_INTERVAL = 0.1
"""Seconds between two reads of what a trainer reports."""

Report = Callable[[TrainingEvent], None]


class Launch(Protocol):
    """A way to run a job; `folder` is where a killed training of the same job left off."""

    def __call__(self, job: TrainingJob, folder: Path, report: Report) -> TrainingResult:
        """Train; raises `TrainingError`."""
        ...


def launch_training(
    job: TrainingJob,
    folder: Path,
    report: Report,
    *,
    module: str = "caploom.training.process",
    environment: Mapping[str, str] | None = None,
) -> TrainingResult:
    """Train in separate processes; `report` is called in this one. They end with this process, however it ends.

    `module` is what each process runs, with `folder` as its argument; `environment` is added to this process's.
    Raises `TrainingError` with the trainer's own sentence, or with the end of its log when it crashed.
    """
    write_job(job, folder)
    reader = EventReader(folder / EVENTS, report)
    with started(job, folder, Node(), module=module, environment=environment) as process:
        while process.poll() is None:
            reader.read()
            time.sleep(POLL_INTERVAL)
        reader.read()
    if process.returncode == 0 and (folder / RESULT).is_file():
        return TrainingResult.model_validate_json((folder / RESULT).read_text(encoding="utf-8"))
    raise TrainingError(failure_message(folder, "The trainer", folder / Node().log, process.returncode, reader.last))


def train_here(job: TrainingJob, folder: Path, report: Report) -> TrainingResult:
    """Train in this process, for a caller that can spare it (a notebook, a test)."""
    from caploom.training.trainer import train

    result = train(job, report)
    assert result is not None  # this process is the first, and the only one
    return result


@contextmanager
def claimed(folder: Path, what: str) -> Iterator[None]:
    """Let only one run at a time train into a folder: another one waits, and then finds the work done."""
    folder.mkdir(parents=True, exist_ok=True)
    with one_at_a_time(folder / LOCK, f"{what}: another run is training it; waiting for it."):
        # Trainers whose launcher was killed read it, see that it is not their owner's, and end.
        (folder / OWNER).write_text(uuid.uuid4().hex, encoding="utf-8")
        yield


def remove_workdir(folder: Path) -> None:
    """Remove the files that a finished training left."""
    shutil.rmtree(folder, ignore_errors=True)


class EventReader:
    """Reads the lines that the trainer has finished writing since the last read."""

    def __init__(self, file: Path, report: Report) -> None:
        self._file, self._report = file, report
        self._position = 0
        self.last: TrainingEvent | None = None

    def read(self) -> None:
        if not self._file.is_file():
            return
        with self._file.open("rb") as file:
            file.seek(self._position)
            for line in file:
                if not line.endswith(b"\n"):
                    break
                self._position += len(line)
                self.last = TrainingEvent.model_validate_json(line)
                self._report(self.last)


def write_job(job: TrainingJob, folder: Path) -> None:
    """Write the job's file; reports of an earlier training in the folder are deleted."""
    for name in (EVENTS, RESULT, ERROR):
        (folder / name).unlink(missing_ok=True)
    (folder / JOB).write_text(job.model_dump_json(), encoding="utf-8")


def failure_message(folder: Path, who: str, log: Path, status: int, last: TrainingEvent | None) -> str:
    """Why a training failed: its own message, or what its launcher's exit status and log show."""
    if (folder / ERROR).is_file():
        return (folder / ERROR).read_text(encoding="utf-8")
    text = log.read_text(encoding="utf-8", errors="replace")
    if status == -signal.SIGKILL or "SIGKILL" in text:
        how = "was killed (SIGKILL), as the system does when memory runs out"
    else:
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        reasons = [line for line in lines if "Error" in line.split(":")[0] and "CalledProcessError" not in line]
        how = f"ended with exit status {status} ({(reasons or lines or ['it printed nothing'])[-1]})"
    return f"{who} {how} {progress_text(last)}; its log is {log}. Run it again: it continues from its last checkpoint."


def progress_text(last: TrainingEvent | None) -> str:
    """How far a training got."""
    return f"after step {last.step:,} of {last.steps:,}" if last else "before its first report"
