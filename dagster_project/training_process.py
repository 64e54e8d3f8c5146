"""The trainer's process as Dagster starts it: its reports also go through Dagster Pipes into the run's log.

`python -m dagster_project.training_process FOLDER`; see `caploom.training.process`.
"""

import os
import sys
from pathlib import Path

from dagster_pipes import PipesContext, open_dagster_pipes

from caploom.training.job import TrainingEvent
from caploom.training.process import run


def _report(pipes: PipesContext, event: TrainingEvent) -> None:
    pipes.log.info(
        f"step {event.step:,} of {event.steps:,}: loss {event.loss:.4f}, learning rate {event.learning_rate:.2e}, "
        f"{event.samples_per_second:,.0f} samples per second, {event.data_wait_share:.0%} of the time waiting for "
        f"data, {event.seconds_left:,.0f} s left"
    )


def main(folder: Path) -> int:
    """Train; only the first process reports to Dagster."""
    if os.environ.get("RANK", "0") != "0":
        return run(folder)
    with open_dagster_pipes() as pipes:
        return run(folder, lambda event: _report(pipes, event))


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
