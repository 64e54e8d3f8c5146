"""The trainer's own process: `python -m caploom.training.process FOLDER`, or several of it under `accelerate launch`.

Reads the folder's `job.json`, trains, and writes `events.jsonl` there (one line per report), and `result.json`, or
`error.json` with one sentence about what a person can fix. Each process of a training runs this; the first one writes.
"""

import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock, Timeout

from caploom.errors import CaploomError
from caploom.storage.writing import write_atomically
from caploom.training.job import TrainingEvent, TrainingJob

JOB, EVENTS, RESULT, ERROR, OWNER, LOCK = (
    "job.json",
    "events.jsonl",
    "result.json",
    "error.json",
    "owner",
    "lock",
)

_FAILED = 1
_ORPHANED = 75
_WATCH_INTERVAL = 1.0  # seconds


def run(folder: Path, report: Callable[[TrainingEvent], None] | None = None) -> int:
    """Run the folder's job; returns the exit status. `report` is also called, in the first process alone."""
    from caploom.training.trainer import train  # imports torch, which is not needed where the process is only named

    _end_with_the_launcher(folder)
    job = TrainingJob.model_validate_json((folder / JOB).read_text(encoding="utf-8"))
    with (folder / EVENTS).open("a", encoding="utf-8", buffering=1) as events:

        def write(event: TrainingEvent) -> None:
            events.write(event.model_dump_json() + "\n")
            if report is not None:
                report(event)

        try:
            result = train(job, write)
        except CaploomError as error:
            _write_error(folder, str(error))
            return _FAILED
        except RuntimeError as error:
            sentence = _out_of_memory(error, job)
            if sentence is None:
                raise
            _write_error(folder, sentence)
            return _FAILED
    if result is not None:
        write_atomically(folder / RESULT, result.model_dump_json().encode())
    return 0


def _write_error(folder: Path, sentence: str) -> None:
    # Several processes may fail together, each with its sentence: the last one stays, unmixed.
    write_atomically(folder / ERROR, sentence.encode())


def _out_of_memory(error: RuntimeError, job: TrainingJob) -> str | None:
    import torch

    if not isinstance(error, torch.OutOfMemoryError) and "not enough memory" not in str(error):
        return None
    at_once = job.settings.micro_batch or job.settings.batch_size // job.settings.processes
    return (
        f"The activations of {at_once:,} images do not fit in memory; set the trainer's micro_batch to "
        f"{max(1, at_once // 2):,}, which gives the same steps, or gradient_checkpointing to true."
    )


def _end_with_the_launcher(folder: Path) -> None:
    """End this process soon after the launcher is gone: two trainers of one job must not run at once."""
    owner = (folder / OWNER).read_text(encoding="utf-8")

    def watch() -> None:
        lock = FileLock(folder / LOCK)
        while True:
            time.sleep(_WATCH_INTERVAL)
            try:
                if (folder / OWNER).read_text(encoding="utf-8") != owner:
                    os._exit(_ORPHANED)
                lock.acquire(timeout=0)  # the launcher holds it while it is alive
            except Timeout:
                continue
            except OSError:  # the folder is gone, and so is the process that waited for the result
                pass
            os._exit(_ORPHANED)

    threading.Thread(target=watch, daemon=True, name="launcher-watch").start()


if __name__ == "__main__":
    sys.exit(run(Path(sys.argv[1])))
