"""One factory for all tests of reproduction, and copies of its store for those that damage something."""

import shutil
from pathlib import Path

import pytest
from reproducible import Made, factory_of, make_everything


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return make_everything(tmp_path_factory.mktemp("reproducible"))


@pytest.fixture
def copied(made: Made, tmp_path: Path) -> Made:
    """The same factory over a copy of its store, which a test may damage."""
    shutil.copytree(made.folder / "store", tmp_path / "store")
    settings = {**made.settings, "store": str(tmp_path / "store")}
    return Made(made.folder, settings, factory_of(made.folder, settings))
