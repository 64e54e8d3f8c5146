"""The trainer as a process of its own, really started, and really killed."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import psutil
import pytest
from training_files import TrainingFiles, train_files, write_tiny_architecture

from caploom.errors import TrainingError
from caploom.training.job import TrainingEvent, TrainingJob, TrainingResult
from caploom.training.launch import claimed, launch_training
from caploom.training.settings import ClipTrainerSettings


@pytest.fixture
def job(tmp_path: Path) -> TrainingJob:
    settings = {
        "model": str(write_tiny_architecture(tmp_path)),
        "steps": 6,
        "batch_size": 8,
        "learning_rate": 3e-3,
        "device": "cpu",
        "save_every": 2,
    }
    (tmp_path / "out").mkdir()
    return TrainingJob(
        training_set=[TrainingFiles(tmp_path).colours_shard()],
        settings=ClipTrainerSettings.model_validate(settings),
        seed=3,
        out=tmp_path / "out",
        state=tmp_path / "work" / "state",
    )


def launched(job: TrainingJob, report=lambda event: None) -> TrainingResult:
    folder = job.out.parent / "work"
    with claimed(folder, "test"):
        return launch_training(job, folder, report)


def with_settings(job: TrainingJob, **changes: object) -> TrainingJob:
    return job.model_copy(update={"settings": job.settings.model_copy(update=changes)})


@pytest.mark.slow
def test_launched_training_is_the_one_of_this_process(tmp_path: Path, job: TrainingJob) -> None:
    events: list[TrainingEvent] = []
    result = launched(job, events.append)
    here = tmp_path / "here"
    here.mkdir()
    expected = train_files(job.training_set, job.settings, seed=job.seed, out=here)
    assert (job.out / "model.safetensors").read_bytes() == (here / "model.safetensors").read_bytes()
    assert result.losses == expected.losses == [(event.step, event.loss) for event in events]
    assert all(event.samples_per_second > 0 and 0 <= event.data_wait_share <= 1 for event in events)


def test_a_mistake_comes_back_as_its_sentence(job: TrainingJob) -> None:
    with pytest.raises(TrainingError, match=r"nowhere\.parquet: this is not a shard of a training set"):
        launched(job.model_copy(update={"training_set": [Path("nowhere.parquet")], "state": None}))


def test_only_one_run_at_a_time_trains_into_a_folder(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    script = f"""
        import time
        from pathlib import Path
        from caploom.training.launch import claimed
        with claimed(Path({str(tmp_path)!r}), "the first"):
            print("claimed", flush=True)
            time.sleep(1.5)
    """
    first = subprocess.Popen([sys.executable, "-c", textwrap.dedent(script)], stdout=subprocess.PIPE)
    assert first.stdout is not None
    first.stdout.readline()
    started = time.monotonic()
    with claimed(tmp_path, "the second"):
        assert time.monotonic() - started > 0.5
    assert "the second: another run is training it; waiting for it." in caplog.text
    assert first.wait() == 0


def trainers_of(folder: Path) -> list[psutil.Process]:
    """The processes that train into a folder."""
    found = []
    for process in psutil.process_iter():
        try:
            if str(folder) in process.cmdline() and "caploom.training.process" in process.cmdline():
                found.append(process)
        except (psutil.NoSuchProcess, psutil.ZombieProcess):
            continue
    return found


@pytest.mark.slow
def test_a_killed_trainer_is_said_and_resumed_to_the_same_weights(tmp_path: Path, job: TrainingJob) -> None:
    job = with_settings(job, steps=40)

    def kill_in_the_middle(event: TrainingEvent) -> None:
        if event.step >= 11:
            for process in trainers_of(tmp_path / "work"):
                process.send_signal(signal.SIGKILL)

    with pytest.raises(
        TrainingError, match=r"was killed \(SIGKILL\).* after step \d+ of 40; its log is .*trainer\.log"
    ):
        launched(job, kill_in_the_middle)
    assert not (job.out / "model.safetensors").exists()
    events: list[TrainingEvent] = []
    result = launched(job, events.append)
    assert result.resumed_from >= 10
    # The time left is estimated at this process's own pace, not as if it had done the earlier steps too.
    pace = events[-2].seconds / (events[-2].step - result.resumed_from)
    assert events[-2].seconds_left == pytest.approx(pace)
    assert result.samples_seen == 40 * 8
    here = tmp_path / "here"
    here.mkdir()
    expected = train_files(job.training_set, job.settings, seed=job.seed, out=here)
    assert (job.out / "model.safetensors").read_bytes() == (here / "model.safetensors").read_bytes()
    assert result.losses == expected.losses


@pytest.mark.slow
def test_no_trainer_outlives_its_launcher(tmp_path: Path, job: TrainingJob) -> None:
    job = with_settings(job, steps=100_000)
    (tmp_path / "job.json").write_text(job.model_dump_json())
    script = f"""
        from pathlib import Path
        from caploom.training.job import TrainingJob
        from caploom.training.launch import claimed, launch_training
        job = TrainingJob.model_validate_json(Path({str(tmp_path / "job.json")!r}).read_text())
        folder = Path({str(tmp_path / "work")!r})
        with claimed(folder, "test"):
            launch_training(job, folder, lambda event: print(event.step, flush=True))
    """
    launcher = subprocess.Popen([sys.executable, "-c", textwrap.dedent(script)], stdout=subprocess.PIPE)
    assert launcher.stdout is not None
    launcher.stdout.readline()
    assert trainers_of(tmp_path / "work")
    os.kill(launcher.pid, signal.SIGKILL)
    launcher.wait()
    deadline = time.monotonic() + 20
    while trainers_of(tmp_path / "work") and time.monotonic() < deadline:
        time.sleep(0.2)
    assert trainers_of(tmp_path / "work") == []
