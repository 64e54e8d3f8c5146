"""Instances of Dagster."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from made_once import MadeOnce


def make_home(folder: Path) -> None:
    """An instance's databases, as Dagster lays them out."""
    with dg.instance_for_test(temp_dir=str(folder)) as instance:
        instance.get_runs_count()
        instance.get_dynamic_partitions("")
        instance.all_instigator_state()


@pytest.fixture
def dagster_home(made_once: MadeOnce, tmp_path: Path) -> Path:
    """The folder of a fresh instance, copied: laying out its databases takes longer than most of these tests."""
    return Path(shutil.copytree(made_once("dagster-home", make_home), tmp_path / "dagster-home"))


@pytest.fixture
def instance(dagster_home: Path) -> Iterator[dg.DagsterInstance]:
    """A fresh instance on real files."""
    with dg.instance_for_test(temp_dir=str(dagster_home)) as made:
        yield made
