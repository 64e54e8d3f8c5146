"""The report's page in a real browser with the network off: drawn, silent, printable, usable without a mouse."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page

from caploom.config.factory import Factory
from caploom.report.make import make_report


@pytest.fixture(scope="module")
def report(factory: Factory) -> Path:
    return make_report(factory).file("report.html")


@pytest.fixture
def said() -> list[str]:
    """What the browser's console had to say."""
    return []


@pytest.fixture
def page(browser: Any, report: Path, said: list[str]) -> Iterator[Page]:
    context = browser.new_context(viewport={"width": 1400, "height": 900}, offline=True)
    page = context.new_page()
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: None if request.url.startswith(("file:", "data:")) else said.append(request.url))
    page.goto(report.as_uri())
    yield page
    context.close()


DRAWN = """[...document.querySelectorAll('.chart svg')].map(svg => {
    const marks = [...svg.querySelectorAll('path, text')].filter(mark => mark.getBoundingClientRect().width > 0);
    return [svg.getBoundingClientRect().width, marks.length];
})"""


def test_every_chart_is_drawn_and_nobody_complains(page: Page, said: list[str]) -> None:
    charts = page.evaluate(DRAWN)
    assert len(charts) >= 5
    for width, marks in charts:
        assert width > 300
        assert marks > 5
    assert said == []


def test_the_pictures_of_queries_are_decoded(page: Page) -> None:
    widths = page.evaluate("[...document.querySelectorAll('.queries img')].map(image => image.naturalWidth)")
    assert widths
    assert all(width > 0 for width in widths)


def test_a_number_leads_to_its_artifact_and_that_to_its_manifest(page: Page, report: Path) -> None:
    page.locator("#m0-ranking tbody tr").first.get_by_role("link").first.click()
    name = page.url.split("#")[1]
    artifact = page.locator(f"#{name}")
    assert artifact.is_visible()
    link = artifact.get_by_role("link").first.get_attribute("href")
    assert link is not None
    assert (report.parent / link).resolve().is_file()


def test_without_a_mouse_the_page_is_read_and_sorted(page: Page) -> None:
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the report"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
    rows = "document.querySelectorAll('#m0-ranking > .scroll tbody tr')"
    first_column = f"[...{rows}].map(row => row.children[0].textContent)"
    before = page.evaluate(first_column)
    page.locator("#m0-ranking th button").first.focus()
    page.keyboard.press("Enter")
    assert page.evaluate(first_column) == sorted(before, reverse=True)
    assert page.locator("#m0-ranking thead th").first.get_attribute("aria-sort") == "descending"
    page.locator("#m0-curves summary").first.focus()
    page.keyboard.press("Enter")
    assert page.locator("#m0-curves details table").first.is_visible()


def test_it_prints_with_its_charts_and_their_figures(page: Page) -> None:
    page.emulate_media(media="print")
    page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    assert all(width > 300 for width, _ in page.evaluate(DRAWN))
    assert not page.locator("nav").is_visible()
    assert page.locator("#m0-curves details table").first.is_visible()
    assert len(page.pdf()) > 50_000


def test_without_scripts_nothing_is_missing(browser: Any, report: Path) -> None:
    context = browser.new_context(java_script_enabled=False, offline=True)
    page = context.new_page()
    page.goto(report.as_uri())
    assert page.locator(".chart svg").count() >= 5
    assert page.locator(".chart svg").first.is_visible()
    context.close()


def test_on_a_phone_nothing_sticks_out(browser: Any, report: Path) -> None:
    context = browser.new_context(viewport={"width": 390, "height": 800}, offline=True)
    page = context.new_page()
    page.goto(report.as_uri())
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    context.close()
