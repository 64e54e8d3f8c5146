"""What many modules need and takes seconds to build: made once a run, by whichever worker of pytest-xdist is first."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock


class MadeOnce:
    """Folders that are filled once a run. Every worker reads them, so no test may change one: it takes a copy."""

    def __init__(self, root: Path) -> None:
        self._root = root
        root.mkdir(exist_ok=True)

    def __call__(self, name: str, build: Callable[[Path], object]) -> Path:
        """The folder of a name, which `build` fills where no worker has done so yet."""
        folder, done = self._root / name, self._root / f"{name}.done"
        with FileLock(self._root / f"{name}.lock"):
            if not done.exists():
                shutil.rmtree(folder, ignore_errors=True)  # of a worker that broke off in the middle
                folder.mkdir()
                build(folder)
                done.touch()
        return folder


def made_once_of(factory: pytest.TempPathFactory) -> MadeOnce:
    """Those below the run's temporary folder, which the workers have in common."""
    base = factory.getbasetemp()
    return MadeOnce((base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "made-once")
