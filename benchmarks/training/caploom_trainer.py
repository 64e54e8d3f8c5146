"""Our side: the trainer's loop on a training set with five captions an image."""

import tempfile
from pathlib import Path
from typing import Any

from benchmarks.child import Done, Job
from benchmarks.training.inputs import BATCH, MODEL_NAME
from benchmarks.training.measuring import LEARNING, measured_recall, on_cores
from caploom.training.job import TrainingJob, TrainingResult
from caploom.training.settings import ClipTrainerSettings


def speed(job: Job) -> Done:
    """Epochs over the pictures; the process's start and the model's making are not measured."""
    folder, options = job.folder / "speed", job.options
    on_cores(options["cores"])
    settings = {
        "model": str(folder / f"{MODEL_NAME}.json"),
        "batch_size": BATCH,
        "steps": options["epochs"] * (job.size // BATCH),
        "image_cache_mb": options.get("image_cache_mb", 0),
    }
    result = _train(job, folder, settings, seed=0, resized=[folder / "resized"] if options.get("resized") else [])
    return Done(result.samples_seen, {"samples": result.samples_seen, "data_wait": result.data_wait_share})


def learning(job: Job) -> Done:
    """The demo's model on the scenes, measured by our evaluation."""
    import pyarrow.parquet as pq

    folder = job.folder / "learning"
    rows = pq.read_metadata(folder / "rows-00000.parquet").num_rows
    settings = {
        "model": LEARNING.model,
        "batch_size": LEARNING.batch_size,
        "steps": LEARNING.steps(rows),
        "learning_rate": LEARNING.learning_rate,
        "warmup_steps": LEARNING.warmup(rows),
        "image_cache_mb": 0,
    }
    with tempfile.TemporaryDirectory() as out:
        result = _train(job, folder, settings, seed=job.options["seed"], out=Path(out))
        recall, chance = measured_recall(folder, checkpoint=Path(out))
    return Done(result.samples_seen, {"recall_at_1": recall, "chance": chance, "scenes": rows})


def _train(
    job: Job,
    folder: Path,
    settings: dict[str, Any],
    *,
    seed: int,
    resized: list[Path] | None = None,
    out: Path | None = None,
) -> TrainingResult:
    from caploom.training.trainer import train

    with tempfile.TemporaryDirectory() as scratch:
        training = TrainingJob(
            training_set=[folder / "rows-00000.parquet"],
            settings=ClipTrainerSettings.model_validate({**settings, "device": "cpu", "workers": 1}),
            seed=seed,
            out=out or Path(scratch),
            resized=resized or [],
        )
        with job.measured():
            result = train(training, lambda event: None)
    assert result is not None
    # The trainer's own clock runs from the first batch asked for to the last step, as the peer's epochs do.
    job.wall_s = result.samples_seen / result.samples_per_second
    return result
