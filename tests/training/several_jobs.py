"""Trains one job after another, in processes that a test may count or kill.

`several_jobs.py FOLDER` does each `*.job.json` of the folder, in the order of their names, and leaves `*.result.json`
beside it, or `*.error.txt` with what was said. With `--die-after STEP`, each job has a process of its own, which ends
by SIGKILL as soon as it reports that step.
"""

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import torch

from caploom.errors import CaploomError
from caploom.training.job import TrainingEvent, TrainingJob
from caploom.training.trainer import train

torch.set_num_threads(1)


def do(file: Path, report: Callable[[TrainingEvent], None]) -> None:
    job = TrainingJob.model_validate_json(file.read_text())
    job.out.mkdir(exist_ok=True)
    name = file.name.removesuffix(".job.json")
    try:
        result = train(job, report)
    except CaploomError as error:
        (file.parent / f"{name}.error.txt").write_text(str(error))
    else:
        if result is not None:
            (file.parent / f"{name}.result.json").write_text(result.model_dump_json())


def do_and_die(file: Path, step: int) -> None:
    """Fork: importing torch again for each of them would take longer than the trainings."""

    def report(event: TrainingEvent) -> None:
        if event.step >= step:
            os.kill(os.getpid(), signal.SIGKILL)

    child = os.fork()
    if child == 0:
        do(file, report)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status), f"{file}: it ended by itself"
    assert os.WTERMSIG(status) == signal.SIGKILL, f"{file}: {status}"


if __name__ == "__main__":
    for job_file in sorted(Path(sys.argv[1]).glob("*.job.json")):
        if sys.argv[2:3] == ["--die-after"]:
            do_and_die(job_file, int(sys.argv[3]))
        else:
            do(job_file, lambda event: None)
