"""A tiny factory, really run once by the headless command, and the real Dagster UI on it."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tiny_factory import Run, run_headless, tiny_settings, write_settings

from caploom.config.factory import Factory


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the scenes are drawn, once for all the factories of the tests."""
    return tmp_path_factory.mktemp("pictures")


@pytest.fixture(scope="session")
def first_run(tmp_path_factory: pytest.TempPathFactory, pictures: Path) -> Run:
    """The first run of the tiny factory."""
    folder = tmp_path_factory.mktemp("tiny")
    return run_headless(write_settings(folder / "tiny.yaml", tiny_settings(pictures)))


@pytest.fixture(scope="session")
def finished(first_run: Run) -> Path:
    """The YAML of a factory in which everything is made."""
    assert first_run.code == 0, first_run.said
    return first_run.config


@pytest.fixture(scope="session")
def factory(finished: Path) -> Factory:
    return Factory.from_yaml(finished)


@pytest.fixture(scope="session")
def browser_path() -> str:
    """A Chromium; without one the pages cannot be tested, which a user may leave and CI may not."""
    from take_screenshots import find_chromium

    path = find_chromium()
    if path is None:
        reason = "No Chromium is installed (chromium, chromium-browser or google-chrome): the pages were not tested."
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    return path


@pytest.fixture(scope="session")
def ui_url(finished: Path, browser_path: str) -> Iterator[str]:
    """The real webserver and daemon on the finished factory."""
    from take_screenshots import running_ui

    with running_ui(finished) as (_, url):
        yield url


@pytest.fixture(scope="module")
def browser(browser_path: str) -> Iterator[Any]:
    """Chromium. While Playwright drives it, an event loop runs in this thread: other modules' tests may start none."""
    from take_screenshots import chromium

    with chromium(browser_path) as opened:
        yield opened
