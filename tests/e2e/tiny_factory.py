"""A factory that is run in seconds, and the commands around it as a user runs them."""

import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
CAPTIONER = "tiny-llava"


@dataclass(frozen=True)
class Run:
    """A finished headless run."""

    config: Path
    code: int
    stdout: str
    stderr: str

    @property
    def said(self) -> str:
        return self.stdout + self.stderr


def run_headless(config: Path, *options: str) -> Run:
    """`python -m dagster_project.run`, as a user runs it."""
    environment = {key: value for key, value in os.environ.items() if key not in ("DAGSTER_HOME", "CAPLOOM_CONFIG")}
    done = subprocess.run(
        [sys.executable, "-m", "dagster_project.run", "--config", str(config), *options],
        cwd=ROOT,
        env={**environment, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    return Run(config, done.returncode, done.stdout, done.stderr)


def tiny_settings(pictures: Path) -> dict[str, Any]:
    """A whole factory that is run in seconds: two shards, one shipped captioner, two recipes."""
    return {
        "name": "tiny",
        "store": "factory",
        "shard_size": 40,
        "pairs": {"reader": "picture_book", "folder": str(pictures / "training"), "scenes": 60},
        "trainers": {"tiny": {"model": "picture-book", "steps": 2, "batch_size": 16}},
        "evaluation_sets": {
            "scenes": {
                "reader": "picture_book",
                "folder": str(pictures / "evaluation"),
                "split": "evaluation",
                "scenes": 20,
            }
        },
        "captioners": {
            CAPTIONER: {
                "model": f"demo:{CAPTIONER}",
                "prompt": "Describe <image> in English:",
                "decoding": {"max_new_tokens": 30},
                "batch_size": 16,
            }
        },
        "shears": {"first-sentence": ["first_sentence"]},
        "recipes": {
            "raw-only": {"captioners": []},
            "captioned": {"captioners": "all", "shear": "first-sentence"},
        },
    }


def write_settings(path: Path, settings: dict[str, Any]) -> Path:
    path.write_text(yaml.safe_dump(settings, sort_keys=False), encoding="utf-8")
    return path


def descendants(pid: int) -> set[int]:
    """The processes below a process."""
    listing = subprocess.run(["ps", "-A", "-o", "pid=,ppid="], capture_output=True, text=True, check=True).stdout
    parents = {int(child): int(parent) for child, parent in (line.split() for line in listing.splitlines())}
    found = {pid}
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return found - {pid}


def alive(pids: set[int], *, patience: float = 5.0) -> set[int]:
    """Which of the processes are still there when the patience (seconds) ends."""
    deadline = time.monotonic() + patience
    while True:
        left = {pid for pid in pids if _exists(pid)}
        if not left or time.monotonic() > deadline:
            return left
        time.sleep(0.1)


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
