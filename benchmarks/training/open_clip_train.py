"""The peer's side: `open_clip_train`'s own main, with the arguments that a user gives it."""

import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.child import Done, Job
from benchmarks.training.inputs import BATCH, MODEL_NAME
from benchmarks.training.measuring import LEARNING, measured_recall, on_cores

_WAITED = re.compile(r"Data \(t\): ([\d.]+)")
_TOOK = re.compile(r"Batch \(t\): ([\d.]+)")


def speed(job: Job) -> Done:
    """Epochs over the pictures; the process's start and the model's making are not measured."""
    folder, epochs = job.folder / "speed", job.options["epochs"]
    on_cores(job.options["cores"])
    arguments = ["--model", MODEL_NAME, "--batch-size", str(BATCH), "--epochs", str(epochs), "--log-every-n-steps", "1"]
    with tempfile.TemporaryDirectory() as logs:
        _run(folder, Path(logs), arguments, folder, job)
        log = Path(logs, "run", "out.log").read_text(encoding="utf-8")
    waited, took = (sum(float(found) for found in pattern.findall(log)) for pattern in (_WAITED, _TOOK))
    samples = epochs * (job.size // BATCH) * BATCH
    return Done(samples, {"samples": samples, "data_wait": waited / took})


def learning(job: Job) -> Done:
    """The demo's model on the scenes, measured by our evaluation."""
    from caploom.training.clip_model import ARCHITECTURES

    folder = job.folder / "learning"
    rows = sum(1 for _ in (folder / "pairs.csv").open(encoding="utf-8")) - 1
    arguments = ["--model", LEARNING.model, "--batch-size", str(LEARNING.batch_size)]
    arguments += ["--epochs", str(LEARNING.epochs), "--lr", str(LEARNING.learning_rate)]
    arguments += ["--warmup", str(LEARNING.warmup(rows)), "--wd", "0.1", "--beta1", "0.9", "--beta2", "0.98"]
    arguments += ["--eps", "1e-6", "--grad-clip-norm", "1.0", "--seed", str(job.options["seed"])]
    with tempfile.TemporaryDirectory() as logs:
        _run(folder, Path(logs), arguments, ARCHITECTURES, job)
        weights = Path(logs, "run", "checkpoints", f"epoch_{LEARNING.epochs}.pt")
        recall, chance = measured_recall(folder, weights=weights)
    samples = LEARNING.steps(rows) * LEARNING.batch_size
    return Done(samples, {"recall_at_1": recall, "chance": chance, "scenes": rows})


def _run(folder: Path, logs: Path, arguments: list[str], architectures: Path, job: Job) -> None:
    import open_clip
    import open_clip_train.main as peer

    open_clip.add_model_config(str(architectures))
    peer.train_one_epoch = _measured(peer.train_one_epoch, job)
    data = ["--train-data", str(folder / "pairs.csv"), "--dataset-type", "csv"]
    logging = ["--logs", str(logs), "--name", "run", "--workers", "1", "--device", "cpu", "--precision", "fp32"]
    peer.main([*data, *logging, *arguments])


def _measured(train_one_epoch: Callable[..., Any], job: Job) -> Callable[..., Any]:
    def measured(*args: Any, **kwargs: Any) -> Any:
        with job.measured():
            return train_one_epoch(*args, **kwargs)

    return measured
