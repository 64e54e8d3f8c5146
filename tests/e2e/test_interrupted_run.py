"""A headless run that is told to end: it ends whole, and takes its trainer along."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import yaml
from tiny_factory import ROOT, run_headless, tiny_settings


def trainers_of(folder: Path) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        try:
            line = process.cmdline()
            if "dagster_project.training_process" in line and any(str(folder) in part for part in line):
                found.append(process)
        except (psutil.NoSuchProcess, psutil.ZombieProcess):
            continue
    return found


def write_config(folder: Path, steps: int) -> Path:
    settings = tiny_settings(folder / "pictures")
    settings["captioners"] = {}
    settings["recipes"] = {"raw-only": {"captioners": []}, "again": {"captioners": [], "mix": {"raw_probability": 1.0}}}
    settings["trainers"] = {"tiny": {"model": "picture-book", "steps": steps, "batch_size": 16}}
    (folder / "factory.yaml").write_text(yaml.safe_dump(settings))
    return folder / "factory.yaml"


def started(tmp_path: Path) -> subprocess.Popen[str]:
    """A run that is in the middle of a training that would take forever."""
    write_config(tmp_path, steps=100_000)
    run = subprocess.Popen(
        [sys.executable, "-m", "dagster_project.run", "--config", str(tmp_path / "factory.yaml")],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell without job control has its background commands ignore Ctrl-C, and their children with them.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    deadline = time.monotonic() + 90
    while not trainers_of(tmp_path) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert trainers_of(tmp_path)
    time.sleep(1)
    return run


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_run_that_is_told_to_end_starts_no_other_recipe(tmp_path: Path, number: signal.Signals) -> None:
    run = started(tmp_path)
    run.send_signal(number)
    _, said = run.communicate(timeout=60)
    assert run.returncode == 2
    assert "run_recipe [again]: interrupted. Run it again: finished artifacts are kept." in said
    assert "[raw-only]" not in said
    assert trainers_of(tmp_path) == []


@pytest.mark.slow
def test_a_killed_run_does_not_keep_its_place_in_the_pool(tmp_path: Path) -> None:
    run = started(tmp_path)
    run.kill()
    run.communicate(timeout=60)
    done = run_headless(write_config(tmp_path, steps=2))  # it would wait forever for the only slot
    assert done.code == 0, done.said
    assert "| raw-only " in done.stdout
