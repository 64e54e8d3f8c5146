"""A global batch behaves the same on one process and on two, which `accelerate launch` really starts."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from several_jobs import do
from training_files import TrainingFiles, write_tiny_architecture

from caploom.errors import TrainingError
from caploom.training.job import TrainingJob, TrainingResult
from caploom.training.launch import claimed, launch_training
from caploom.training.settings import BlipTrainerSettings, ClipTrainerSettings

torch.set_num_threads(1)

_SCRIPT = Path(__file__).parent / "several_jobs.py"

AddJob = Callable[..., TrainingJob]


def launch_two(folder: Path) -> None:
    """Do the folder's jobs on two processes."""
    command = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_machines", "1"]
    command += ["--mixed_precision", "no", "--dynamo_backend", "no", "--num_processes", "2", "--main_process_port", "0"]
    environment = {**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, str(_SCRIPT), str(folder)], env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr[-3000:]


def result(folder: Path, name: str) -> TrainingResult:
    error = folder / f"{name}.error.txt"
    assert not error.exists(), error.read_text()
    return TrainingResult.model_validate_json((folder / f"{name}.result.json").read_text())


def weights(folder: Path, name: str) -> dict[str, torch.Tensor]:
    return load_file(folder / f"{name}.out" / "model.safetensors")


@pytest.fixture
def add_job(tmp_path: Path) -> AddJob:
    """Writes a job into a folder; keywords are the trainer's settings, `architecture` what the model's differs in."""

    def add(
        folder: Path, name: str, shard: Path, *, state: Path | None = None, architecture: Any = None, **changes: Any
    ) -> TrainingJob:
        folder.mkdir(exist_ok=True)
        model = str(write_tiny_architecture(tmp_path, architecture))
        settings = {"model": model, "steps": 6, "batch_size": 8, "learning_rate": 3e-3, "device": "cpu", **changes}
        job = TrainingJob(
            training_set=[shard],
            settings=ClipTrainerSettings.model_validate(settings),
            seed=5,
            out=folder / f"{name}.out",
            state=state,
        )
        (folder / f"{name}.job.json").write_text(job.model_dump_json())
        return job

    return add


def shards(folder: Path) -> dict[str, Path]:
    """Training sets over the same images: one caption a step, several, and one with images that are gone."""
    files = TrainingFiles(folder)
    plain = files.colours_shard()
    images = files.images(24)
    rows = []
    for index, (path, name) in enumerate(images):
        captions = [f"a {name} picture", f"the colour {name}, nothing else", f"number {index}"][: 1 + index % 3]
        rows.append(files.row(path, captions, sources=["raw", "one", "two"][: len(captions)]))
    several = files.shard("several", rows, mix={"multi_positive": 3})
    gone = TrainingFiles(folder / "gone")
    gone.folder.mkdir()
    return {"plain": plain, "several": several, "gone": gone.numbered_shard(24, missing=(2, 3, 11))}


CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "clip": ("plain", {}),
    "clip in parts": ("plain", {"micro_batch": 3, "ema_decay": 0.9}),
    "clip of several texts": ("several", {}),
    "clip of several texts in parts": ("several", {"micro_batch": 3}),
    "clip with a bias that it has no use for": ("plain", {"architecture": {"init_logit_bias": -10.0}}),
    "siglip": ("plain", {"loss": "siglip"}),
    "siglip of several texts in parts": ("several", {"loss": "siglip", "micro_batch": 3}),
    # The processes' parts differ in length, and by that in how often they are computed.
    "clip with places left empty": ("gone", {"max_failed_share": 0.5}),
    "siglip with places left empty in parts": ("gone", {"max_failed_share": 0.5, "loss": "siglip", "micro_batch": 3}),
}


@pytest.mark.slow
def test_two_processes_train_as_one(tmp_path: Path, add_job: AddJob) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    training_sets = shards(tmp_path)
    for name, (shard, changes) in CASES.items():
        add_job(one, name, training_sets[shard], **changes)
        add_job(two, name, training_sets[shard], **changes, processes=2)
        do(one / f"{name}.job.json", lambda event: None)
    # Dropout is drawn in each process: what an earlier run of the job left must bring back the numbers of both.
    dropping = {"architecture": {"vision_cfg": {"patch_dropout": 0.5}}, "processes": 2, "save_every": 4}
    add_job(two, "dropping 1 at once", training_sets["plain"], **dropping)
    for name in ("dropping 2 interrupted", "dropping 3 resumed"):
        add_job(two, name, training_sets["plain"], **dropping, state=tmp_path / "state")
    launch_two(two)
    for name in CASES:
        alone, together = result(one, name), result(two, name)
        assert together.processes == 2, name
        assert dict(together.losses) == pytest.approx(dict(alone.losses), abs=1e-5), name
        assert (together.samples_seen, together.failures) == (alone.samples_seen, alone.failures), name
        assert together.failures == ({"missing_image": 3} if CASES[name][0] == "gone" else {}), name
        expected, made = weights(one, name), weights(two, name)
        assert made.keys() == expected.keys(), name
        for key, weight in made.items():
            torch.testing.assert_close(weight, expected[key], rtol=0, atol=3e-5, msg=f"{name}: {key}")
    assert result(two, "dropping 3 resumed").resumed_from == 4
    at_once, resumed = weights(two, "dropping 1 at once"), weights(two, "dropping 3 resumed")
    assert all(torch.equal(resumed[key], weight) for key, weight in at_once.items())


@pytest.mark.slow
def test_blip_contrasts_over_both_processes_and_resumes(tmp_path: Path) -> None:
    """Its hard negatives are of a process's own part, so that from its second step on it is not the same training."""
    one, two = tmp_path / "one", tmp_path / "two"
    shard = shards(tmp_path)["several"]
    settings: dict[str, Any] = {"kind": "blip", "model": "blip-picture-book", "steps": 4, "batch_size": 8}
    settings |= {"device": "cpu", "learning_rate": 1e-4, "queue_size": 16, "soft_labels": 0.4, "save_every": 2}
    for folder, processes in ((one, 1), (two, 2)):
        folder.mkdir()
        for name, state in (("1 at once", None), ("2 interrupted", folder / "state"), ("3 resumed", folder / "state")):
            job = TrainingJob(
                training_set=[shard],
                settings=BlipTrainerSettings.model_validate({**settings, "processes": processes}),
                seed=5,
                out=folder / f"{name}.out",
                state=state,
            )
            (folder / f"{name}.job.json").write_text(job.model_dump_json())
    do(one / "1 at once.job.json", lambda event: None)
    launch_two(two)
    alone, together = result(one, "1 at once"), result(two, "1 at once")
    assert together.parts["itc"][0] == pytest.approx(alone.parts["itc"][0], abs=1e-5)
    assert dict(together.losses) == pytest.approx(dict(alone.losses), abs=0.05)
    assert result(two, "3 resumed").resumed_from == 2
    files = [file.relative_to(two / "1 at once.out") for file in (two / "1 at once.out").rglob("*.safetensors")]
    assert files
    for file in files:
        assert (two / "1 at once.out" / file).read_bytes() == (two / "3 resumed.out" / file).read_bytes()


@pytest.mark.slow
def test_what_one_process_cannot_use_ends_both_and_is_said(tmp_path: Path, add_job: AddJob) -> None:
    """Of the step in which one of them has no image at all, the other waits for its features."""
    shard = TrainingFiles(tmp_path).numbered_shard(24, missing=range(5, 24))
    job = add_job(tmp_path / "jobs", "job", shard, max_failed_share=1, steps=50, processes=2)
    job.out.mkdir()
    with claimed(tmp_path / "work", "test"), pytest.raises(TrainingError, match=r"rows .* cannot be used \(4 missing_"):
        launch_training(job, tmp_path / "work", lambda event: None)
    assert list(job.out.iterdir()) == []
