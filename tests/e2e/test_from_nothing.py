"""An empty store in the real UI: from the first page to the report in four clicks, with and without a job."""

import os
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect
from take_screenshots import new_page, running_ui
from tiny_factory import tiny_settings, write_settings

from caploom.config.factory import Factory

pytestmark = pytest.mark.slow

PATIENCE = 900  # seconds until everything is made, on a busy machine

expect.set_options(timeout=120_000)


class Clicks:
    """Clicks of a person, counted; the documentation's picture of each is taken before it."""

    def __init__(self, page: Page, name: str) -> None:
        self._page, self._name, self.count = page, name, 0

    def on(self, target: Any) -> None:
        expect(target).to_be_enabled()
        self.count += 1
        if folder := os.environ.get("CAPLOOM_PICTURES"):
            target.hover()
            self._page.wait_for_timeout(1_500)
            self._page.screenshot(path=Path(folder) / f"{self._name}-{self.count}.png")
        target.click()


@pytest.fixture
def config(tmp_path: Path, pictures: Path) -> Path:
    return write_settings(tmp_path / "tiny.yaml", tiny_settings(pictures))


def wait_for_report(page: Page, config: Path) -> None:
    store = Factory.from_yaml(config).store
    for _ in range(PATIENCE):
        if store.list("ablation_report"):
            return
        page.wait_for_timeout(1_000)
    raise AssertionError(f"after {PATIENCE} s there is no report")


def check_report(page: Page, url: str) -> None:
    page.goto(f"{url}/assets/ablation_report")
    expect(page.get_by_text("report page", exact=True).first).to_be_visible()


def test_the_job_everything_makes_all_in_four_clicks(config: Path, browser: Any) -> None:
    with running_ui(config) as (_, url):
        page = new_page(browser, 1500, 900)
        page.goto(url)
        clicks = Clicks(page, "from-nothing")
        clicks.on(page.locator("a[href='/jobs']").first)
        clicks.on(page.get_by_text("everything", exact=True).first)
        clicks.on(page.get_by_text("Launchpad", exact=True).first)
        clicks.on(page.get_by_role("button", name="Launch Run"))
        assert clicks.count <= 4
        wait_for_report(page, config)
        expect(page.get_by_text("RUN_SUCCESS").first).to_be_visible()
        check_report(page, url)
        page.close()


def test_materialize_all_works_on_an_empty_store(config: Path, browser: Any) -> None:
    with running_ui(config) as (_, url):
        page = new_page(browser, 1500, 900)
        page.goto(url)
        clicks = Clicks(page, "materialize-all")
        clicks.on(page.locator("a[href^='/asset-groups']").first)
        clicks.on(page.get_by_role("button", name="Materialize all").first)
        clicks.on(page.get_by_role("dialog").get_by_role("button", name="All", exact=True))
        clicks.on(page.get_by_role("dialog").get_by_role("button", name="Launch backfill"))
        assert clicks.count <= 4
        wait_for_report(page, config)
        check_report(page, url)
        page.close()
