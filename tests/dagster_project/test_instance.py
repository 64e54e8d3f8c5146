"""The Dagster instance of a new factory: whole before any service opens it."""

import sqlite3
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import dagster as dg
import pytest
from small_factory import settings_of

from caploom.config.factory_config import FactoryConfig, load_config
from dagster_project.instance import instance_home


@pytest.fixture
def config(write_source, write_config) -> FactoryConfig:
    return load_config(write_config(settings_of(write_source(1))))


def heads(home: Path) -> dict[str, int]:
    """How many revisions each of its databases says it has; more than one is an instance that nobody can open."""
    found = {}
    for file in home.rglob("*.db"):
        with sqlite3.connect(file) as database:
            found[file.name] = len(database.execute("select * from alembic_version").fetchall())
    return found


def test_its_databases_are_there_before_its_settings(config: FactoryConfig) -> None:
    home = instance_home(config)
    assert {"runs.db", "schedules.db", "index.db"} <= set(heads(home))
    assert (home / "dagster.yaml").read_text(encoding="utf-8").startswith("telemetry: {enabled: false}")
    assert not list(home.glob(".dagster*"))


def test_several_that_open_a_new_factory_at_once_find_one_instance(config: FactoryConfig) -> None:
    with ThreadPoolExecutor(4) as pool:
        homes = set(pool.map(lambda _: instance_home(config), range(4)))
    assert len(homes) == 1
    assert set(heads(*homes).values()) == {1}
    with dg.DagsterInstance.from_config(str(*homes)) as instance:
        assert instance.get_runs() == []


def test_a_user_s_settings_stay(config: FactoryConfig) -> None:
    home = config.store / "dagster"
    home.mkdir(parents=True)
    (home / "dagster.yaml").write_text("telemetry: {enabled: false}\n", encoding="utf-8")
    assert instance_home(config) == home
    assert (home / "dagster.yaml").read_text(encoding="utf-8") == "telemetry: {enabled: false}\n"
