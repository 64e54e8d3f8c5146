"""Trainings that are broken off or really killed, and go on to what they would have been."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from several_jobs import do
from training_files import TINY_ARCHITECTURE, TrainingFiles, train_files, write_tiny_architecture

from caploom.training.clip_model import create_clip_model, save_checkpoint
from caploom.training.curve import LOSSES, LOSSES_FILE, Curve
from caploom.training.job import TrainingEvent, TrainingJob, TrainingResult
from caploom.training.settings import ClipTrainerSettings
from caploom.training.trainer import train

torch.set_num_threads(1)

_SCRIPT = Path(__file__).parent / "several_jobs.py"
_STEPS, _DIES_AFTER, _SAVED_AT = 9, 5, 4

_DROPOUT = {"vision_cfg": {"patch_dropout": 0.5}}
CASES: dict[str, dict[str, Any]] = {
    "plain": {},
    "averaged": {"ema_decay": 0.9},
    "dropout": {"architecture": _DROPOUT},
    "dropout in parts": {"architecture": _DROPOUT, "micro_batch": 3},
    "dropout with a worker": {"architecture": _DROPOUT, "workers": 1},
    "several texts": {"mix": {"multi_positive": 2, "sub_caption": True}},
    "siglip in half precision": {"loss": "siglip", "precision": "bf16"},
    "a missing image": {"missing": 2},
}


def make_job(
    folder: Path,
    *,
    name: str = "job",
    mix: Any = "uniform",
    missing: int | None = None,
    architecture: Any = None,
    seed: int = 3,
    **changes: Any,
) -> TrainingJob:
    """A job whose states are in the folder; keywords beside those named are the trainer's settings."""
    folder.mkdir(exist_ok=True)
    files = TrainingFiles(folder)
    captions = ("a {} picture. It is small.", "the colour {}, nothing else")
    images = files.images(24)
    rows = [files.row(path, [caption.format(colour) for caption in captions]) for path, colour in images]
    shard = files.shard("rows", rows, mix)
    if missing is not None:
        images[missing][0].unlink()
    settings = {
        "model": str(write_tiny_architecture(folder, architecture)),
        "steps": _STEPS,
        "batch_size": 8,
        "learning_rate": 3e-3,
        "device": "cpu",
        "save_every": 2,
        **changes,
    }
    return TrainingJob(
        training_set=[shard],
        settings=ClipTrainerSettings.model_validate(settings),
        seed=seed,
        out=folder / f"{name}.out",
        state=folder / "state",
    )


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with each case's job, killed in the middle."""
    folder = tmp_path_factory.mktemp("killed")
    for name, changes in CASES.items():
        job = make_job(folder / name, name=name, **changes)
        (folder / f"{name}.job.json").write_text(job.model_dump_json())
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with (folder / "log").open("wb") as log:  # a file, since a worker of a killed trainer holds it for seconds more
        command = [sys.executable, str(_SCRIPT), str(folder), "--die-after", str(_DIES_AFTER)]
        status = subprocess.run(command, env=environment, stdout=log, stderr=log, timeout=120).returncode
    assert status == 0, (folder / "log").read_text()[-3000:]
    return folder


def result(folder: Path, name: str) -> TrainingResult:
    error = folder / f"{name}.error.txt"
    assert not error.exists(), error.read_text()
    return TrainingResult.model_validate_json((folder / f"{name}.result.json").read_text())


def at_once(job: TrainingJob) -> TrainingResult:
    """The same training, uninterrupted, into `at-once` beside the other's folder."""
    out = job.out.parent / "at-once"
    out.mkdir()
    return train_files(job.training_set, job.settings, seed=job.seed, out=out)


def assert_resumes_to_the_same_weights(folder: Path, name: str) -> None:
    job = TrainingJob.model_validate_json((folder / f"{name}.job.json").read_text())
    assert list(job.out.iterdir()) == []
    do(folder / f"{name}.job.json", lambda event: None)
    resumed, expected = result(folder, name), at_once(job)
    assert resumed.resumed_from == _SAVED_AT
    assert (job.out / "model.safetensors").read_bytes() == (job.out.parent / "at-once/model.safetensors").read_bytes()
    assert pq.read_table(job.out / LOSSES_FILE).equals(pq.read_table(job.out.parent / "at-once" / LOSSES_FILE))
    assert (resumed.losses, resumed.samples_seen) == (expected.losses, expected.samples_seen)
    assert resumed.failures == expected.failures == ({"missing_image": 1} if "missing" in CASES[name] else {})


@pytest.mark.slow
@pytest.mark.parametrize("name", list(CASES))
def test_a_killed_training_resumes_to_the_same_weights(killed: Path, name: str) -> None:
    assert_resumes_to_the_same_weights(killed, name)


class BrokenOff(Exception):
    """What ends a training in the middle without ending this process."""


def break_off(event: TrainingEvent) -> None:
    if event.step >= _DIES_AFTER:
        raise BrokenOff


@pytest.mark.parametrize("name", list(CASES))
def test_a_training_that_was_broken_off_resumes_to_the_same_weights(tmp_path: Path, name: str) -> None:
    job = make_job(tmp_path / name, name=name, **CASES[name])
    (tmp_path / f"{name}.job.json").write_text(job.model_dump_json())
    with pytest.raises(BrokenOff):
        do(tmp_path / f"{name}.job.json", break_off)
    assert_resumes_to_the_same_weights(tmp_path, name)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> TrainingJob:
    """A job that has run to the end, with the states that it leaves: after 6 steps and after 8."""
    job = make_job(tmp_path_factory.mktemp("finished") / "job")
    job.out.mkdir()
    train_files(job.training_set, job.settings, seed=job.seed, out=job.out, state=job.state)
    assert job.state is not None
    assert sorted(folder.name for folder in job.state.iterdir()) == ["step-00000006", "step-00000008"]
    return job


@pytest.fixture
def interrupted(finished: TrainingJob, tmp_path: Path) -> TrainingJob:
    """The same job with a checkpoint, states and an architecture of the test's own."""
    assert finished.state is not None
    out, state = (shutil.copytree(folder, tmp_path / folder.name) for folder in (finished.out, finished.state))
    model = shutil.copy(finished.settings.model, tmp_path)
    return changed(finished, model=str(model)).model_copy(update={"out": out, "state": state})


def changed(job: TrainingJob, *, seed: int | None = None, **changes: Any) -> TrainingJob:
    """The job with other settings, or another seed."""
    settings = ClipTrainerSettings.model_validate({**job.settings.model_dump(exclude_unset=True), **changes})
    return job.model_copy(update={"settings": settings, "seed": job.seed if seed is None else seed})


def resumed(job: TrainingJob) -> TrainingResult:
    return train_files(job.training_set, job.settings, seed=job.seed, out=job.out, state=job.state)


@pytest.mark.parametrize(
    ("file", "length"), [("tensors.safetensors", 1000), ("tensors.safetensors", 4), ("facts.json", 40)]
)
def test_a_state_that_was_cut_is_passed_over_and_said(interrupted: TrainingJob, file: str, length: int) -> None:
    assert interrupted.state is not None
    whole = (interrupted.out / "model.safetensors").read_bytes()
    os.truncate(interrupted.state / "step-00000008" / file, length)
    result = resumed(interrupted)
    assert result.resumed_from == 6
    [note] = result.notes
    assert note.startswith("step-00000008 cannot be resumed from (")
    assert (interrupted.out / "model.safetensors").read_bytes() == whole
    # The state that was cut has been written again.
    assert resumed(interrupted).resumed_from == 8


@pytest.mark.parametrize("file", ["tensors.safetensors", "facts.json"])
@pytest.mark.parametrize("content", [b"", b"null", bytes(5000), None])
def test_states_of_which_nothing_is_left_start_from_the_beginning(
    interrupted: TrainingJob, file: str, content: bytes | None
) -> None:
    assert interrupted.state is not None
    for folder in interrupted.state.iterdir():
        (folder / file).unlink()
        if content is not None:
            (folder / file).write_bytes(content)
    result = resumed(interrupted)
    assert result.resumed_from == 0
    assert len(result.notes) == 2


@pytest.mark.parametrize(
    "changes",
    [{"seed": 4}, {"learning_rate": 1e-3}, {"steps": 10}, {"batch_size": 6}, {"ema_decay": 0.5}, {"loss": "siglip"}],
)
def test_a_state_of_another_job_is_not_taken(interrupted: TrainingJob, changes: dict[str, Any]) -> None:
    assert resumed(changed(interrupted, **changes)).resumed_from == 0


def test_an_architecture_that_was_edited_is_another_job(interrupted: TrainingJob) -> None:
    Path(interrupted.settings.model).write_text(json.dumps({**TINY_ARCHITECTURE, "init_logit_scale": 1.0}))
    assert resumed(interrupted).resumed_from == 0


def test_what_only_decides_how_it_runs_takes_up_the_same_state(interrupted: TrainingJob) -> None:
    job = changed(interrupted, save_every=3, workers=1, image_cache_mb=0, gradient_checkpointing=True)
    assert resumed(job).resumed_from == 8


def test_a_draft_that_a_kill_left_is_no_state(interrupted: TrainingJob) -> None:
    assert interrupted.state is not None
    newest = interrupted.state / "step-00000008"
    newest.rename(interrupted.state / ".step-00000008.123.abcdef01")
    assert resumed(interrupted).resumed_from == 6


def test_states_hold_no_pickle(interrupted: TrainingJob) -> None:
    assert interrupted.state is not None
    files = [path for path in interrupted.state.rglob("*") if path.is_file()]
    assert sorted({path.name for path in files}) == ["facts.json", "tensors.safetensors"]
    # What pickle begins with, since its protocol 2, and the archive that torch.save writes.
    assert not any(path.read_bytes().startswith((b"\x80", b"PK")) for path in files)


def test_fine_tuning_resumes_too(tmp_path: Path) -> None:
    start = tmp_path / "start"
    start.mkdir()
    job = make_job(tmp_path / "job")
    save_checkpoint(create_clip_model(job.settings.model, seed=11), start)
    job.out.mkdir()
    job = job.model_copy(update={"initial": start})

    first = train(job, lambda event: None)
    whole = (job.out / "model.safetensors").read_bytes()
    second = train(job, lambda event: None)
    assert first is not None
    assert second is not None
    assert (first.resumed_from, second.resumed_from) == (0, 8)
    assert (job.out / "model.safetensors").read_bytes() == whole
    # From another checkpoint it is another job.
    other = train(job.model_copy(update={"initial": None}), lambda event: None)
    assert other is not None
    assert other.resumed_from == 0


def test_a_curve_with_named_parts_goes_on() -> None:
    def steps(curve: Curve, first: int, last: int) -> None:
        for step in range(first, last + 1):
            parts = {"loss": torch.tensor(step + 0.1), "itc": torch.tensor(step + 0.2)}
            curve.add(parts, torch.tensor(1.0), 0.5)
            if curve.due(step):
                curve.event(step, 8)

    whole = Curve(300)
    steps(whole, 1, 7)
    first = Curve(300)
    steps(first, 1, 4)
    second = Curve(300)
    second.load_state(json.loads(json.dumps(first.state())))
    steps(second, 5, 7)
    assert second.losses() == whole.losses() != []
    assert second.parts() == whole.parts()
    assert pa.Table.from_pylist(second.points, LOSSES).equals(pa.Table.from_pylist(whole.points, LOSSES))
