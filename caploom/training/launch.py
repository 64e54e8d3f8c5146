"""Starts the trainer as processes of its own under `accelerate launch`, follows them, and takes back what they made.

The trainer's memory, its crashes and its signals are its own: the factory sees a result or one sentence.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Protocol

from caploom.errors import TrainingError
from caploom.locks import one_at_a_time
from caploom.training.job import TrainingEvent, TrainingJob, TrainingResult
from caploom.training.process import ERROR, EVENTS, JOB, LOCK, OWNER, RESULT

_LOG = "trainer.log"
_POLL_INTERVAL = 0.1  # seconds
_PATIENCE = 20.0  # seconds from SIGTERM to SIGKILL
_ACCELERATE_CONFIG = "accelerate.json"

Report = Callable[[TrainingEvent], None]


class Launch(Protocol):
    """A way of having a job done; `folder` is where a killed training of the same job left off."""

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
    """Train in processes of their own; `report` is called in this one. Everything ends with it, however it ends.

    `module` is what `accelerate launch` runs, with `folder` as its argument; `environment` is added to this process's.
    Raises `TrainingError` with the trainer's own sentence, or with the end of its log when it crashed.
    """
    for name in (EVENTS, RESULT, ERROR):
        (folder / name).unlink(missing_ok=True)
    (folder / JOB).write_text(job.model_dump_json(), encoding="utf-8")
    reader = _EventReader(folder / EVENTS, report)
    surroundings = {**os.environ, **_environment(job), **(environment or {})}
    with (folder / _LOG).open("wb") as log:
        process = subprocess.Popen(
            _command(job, folder, module, surroundings),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=surroundings,
            start_new_session=True,  # a group of its own, which can be ended as one
        )
        try:
            while process.poll() is None:
                reader.read()
                time.sleep(_POLL_INTERVAL)
            reader.read()
        finally:
            _end(process)
    if process.returncode == 0 and (folder / RESULT).is_file():
        return TrainingResult.model_validate_json((folder / RESULT).read_text(encoding="utf-8"))
    raise TrainingError(_sentence(folder, process.returncode, reader.last))


def train_here(job: TrainingJob, folder: Path, report: Report) -> TrainingResult:
    """Train in this process, for whoever has one to spare (a notebook, a test)."""
    from caploom.training.trainer import train

    result = train(job, report)
    assert result is not None  # this process is the first, and the only one
    return result


@contextmanager
def claimed(folder: Path, what: str) -> Iterator[None]:
    """Only one run at a time trains into a folder: another one waits, and then finds its work done."""
    folder.mkdir(parents=True, exist_ok=True)
    with one_at_a_time(folder / LOCK, f"{what}: another run is training it; waiting for it."):
        # Trainers whose launcher was killed read it, see that it is not theirs, and end.
        (folder / OWNER).write_text(uuid.uuid4().hex, encoding="utf-8")
        yield


def forget(folder: Path) -> None:
    """Remove what a finished training left."""
    shutil.rmtree(folder, ignore_errors=True)


def _command(job: TrainingJob, folder: Path, module: str, environment: Mapping[str, str]) -> list[str]:
    processes = job.settings.processes
    # A file of its own, so that the user's, which may say anything (DeepSpeed, FSDP), is not taken.
    config = folder / _ACCELERATE_CONFIG
    settings = {
        "compute_environment": "LOCAL_MACHINE",
        "distributed_type": "MULTI_GPU" if processes > 1 else "NO",
        "num_machines": 1,
        "num_processes": processes,
        "mixed_precision": "no",
        "dynamo_backend": "NO",
        "use_cpu": False,
        "machine_rank": 0,
        "main_training_function": "main",
    }
    config.write_text(json.dumps(settings), encoding="utf-8")
    command = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(config)]
    command += ["--num_processes", str(processes), "--num_machines", "1", "--mixed_precision", "no"]
    command += ["--dynamo_backend", "no", "--main_process_port", "0"]
    if "OMP_NUM_THREADS" not in environment:
        command += ["--num_cpu_threads_per_process", str(max(1, (os.cpu_count() or 1) // processes))]
    if processes > 1:
        command.append("--multi_gpu")  # whatever the device: it is what starts several processes
    return [*command, "-m", module, str(folder)]


def _environment(job: TrainingJob) -> dict[str, str]:
    if job.settings.processes == 1:
        return {}
    from caploom.training.clip_model import resolve_device  # torch, for a training that takes several devices anyway

    on_cpu = resolve_device(job.settings.device).type == "cpu"
    return {"ACCELERATE_USE_CPU": "true"} if on_cpu else {}


class _EventReader:
    """Reads the lines that the trainer has finished writing since it was last asked."""

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


def _end(process: subprocess.Popen[bytes]) -> None:
    """Leave nobody of the process's group behind."""
    for number, patience in ((signal.SIGTERM, _PATIENCE), (signal.SIGKILL, None)):
        if process.poll() is not None:
            break
        os.killpg(process.pid, number)
        try:
            process.wait(patience)
        except subprocess.TimeoutExpired:
            continue
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)  # what the launcher started and did not take along


def _sentence(folder: Path, status: int, last: TrainingEvent | None) -> str:
    if (folder / ERROR).is_file():
        return (folder / ERROR).read_text(encoding="utf-8")
    where = f"after step {last.step:,} of {last.steps:,}" if last else "before its first report"
    text = (folder / _LOG).read_text(encoding="utf-8", errors="replace")
    if status == -signal.SIGKILL or "SIGKILL" in text:
        how = "was killed (SIGKILL), as the system does when memory runs out"
    else:
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        reasons = [line for line in lines if "Error" in line.split(":")[0] and "CalledProcessError" not in line]
        how = f"ended with exit status {status} ({(reasons or lines or ['it said nothing'])[-1]})"
    return f"The trainer {how} {where}; its log is {folder / _LOG}. Run it again: it goes on from its last checkpoint."
