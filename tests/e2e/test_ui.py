"""The Dagster UI as a user sees it: the real webserver and daemon, in a real browser."""

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Locator, Page, expect
from take_screenshots import (
    ask_in_launchpad,
    asset_names,
    new_page,
    open_entry,
    open_lineage,
    open_partition,
    open_report,
    open_tagged,
    running_ui,
)
from tiny_factory import CAPTIONER, ROOT, alive, descendants, tiny_settings, write_settings

from caploom.config.factory import Factory

RECIPES = ["raw-only", "captioned"]
UI_JOB = "__ASSET_JOB"  # what Dagster calls a run that a click on an asset started
PATIENCE = 120  # seconds, for a busy machine

expect.set_options(timeout=PATIENCE * 1000)


@pytest.fixture
def page(browser: Any) -> Iterator[Page]:
    opened = new_page(browser, 1500, 1000)
    yield opened
    opened.close()


def drawn_widths(place: Locator) -> list[int]:
    """The width in pixels of each picture that the browser decoded; 0 is a broken one."""
    return [int(image.evaluate("image => image.naturalWidth")) for image in place.locator("img").all()]


def run_ui(config: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """`python -m dagster_project.ui`, where it is expected to end by itself."""
    command = [sys.executable, "-m", "dagster_project.ui", "--config", str(config), *options]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE, check=False)


def ask(url: str, query: str) -> Any:
    """The answer of the webserver's GraphQL."""
    body = json.dumps({"query": query}).encode()
    request = urllib.request.Request(f"{url}/graphql", data=body, headers={"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)["data"]


def test_lineage_graph_shows_every_asset(browser: Any, ui_url: str, factory: Factory) -> None:
    names = asset_names(factory.config)
    assert CAPTIONER in names
    page = new_page(browser, 2300, 1400)
    for name, node in zip(names, open_lineage(page, ui_url, names), strict=True):
        assert node.is_visible(), name
    assert page.get_by_role("dialog").count() == 0
    page.close()


def test_no_dialog_covers_the_first_page(page: Page, ui_url: str) -> None:
    page.goto(ui_url)
    page.get_by_text("Lineage").first.or_(page.get_by_label("lineage").first).first.wait_for()
    page.wait_for_timeout(1_000)
    assert page.get_by_role("dialog").count() == 0


def test_captions_gallery_shows_pictures_and_captions_side_by_side(page: Page, ui_url: str) -> None:
    table = open_partition(page, ui_url, f"captions/{CAPTIONER}", "shard-00001")
    expect(table).to_contain_text("rows_out")
    gallery = open_entry(page, table, "gallery")
    expect(gallery.locator("th")).to_have_text(["image", "raw", CAPTIONER])
    widths = drawn_widths(gallery)
    assert len(widths) == 5
    assert all(widths)
    for row in gallery.locator("tbody tr").all():
        assert all(cell.strip() for cell in row.locator("td").all_inner_texts()[1:])


def test_plots_are_drawn(page: Page, ui_url: str) -> None:
    for asset, partition, key in (
        (f"captions/{CAPTIONER}", "shard-00001", "lengths"),
        ("sheared_captions", "captioned", "lengths"),
        ("checkpoint", "captioned", "loss"),
    ):
        plot = open_entry(page, open_partition(page, ui_url, asset, partition), key)
        (width,) = drawn_widths(plot)
        assert width > 300


def test_what_a_captioner_s_captions_are_like_is_a_table(page: Page, ui_url: str) -> None:
    table = open_partition(page, ui_url, f"captions/{CAPTIONER}", "shard-00001")
    expect(table).to_contain_text("refusals")
    expect(table).to_contain_text("words shared with the raw caption")
    expect(table).to_contain_text("opening 1")


def test_the_canary_and_the_row_counts_are_passed_checks(page: Page, ui_url: str) -> None:
    page.goto(f"{ui_url}/assets/captions/{CAPTIONER}?view=checks")
    for check in ("batched_equals_single", "rows_accounted", "orphan_free"):
        expect(page.get_by_text(check).first).to_be_visible()


def test_recall_table_is_readable_in_the_metadata(page: Page, ui_url: str) -> None:
    table = open_partition(page, ui_url, "retrieval_metrics", "captioned")
    recall = table.locator("table").first
    expect(recall).to_contain_text("i2t R@1")
    expect(recall).to_contain_text("(chance)")


@pytest.mark.parametrize("asset", ["sheared_captions", "retrieval_metrics"])
def test_recipes_are_shown_materialized(page: Page, ui_url: str, asset: str) -> None:
    page.goto(f"{ui_url}/assets/{asset}?view=partitions")
    expect(page.get_by_text(f"Materialized ({len(RECIPES)})")).to_be_visible()
    expect(page.get_by_text("Missing (0)")).to_be_visible()
    expect(page.get_by_text("Failed (0)")).to_be_visible()
    for recipe in RECIPES:
        expect(page.get_by_text(recipe, exact=True).first).to_be_visible()


def test_a_click_on_materialize_runs_through_the_daemon(page: Page, ui_url: str) -> None:
    page.goto(f"{ui_url}/assets/ablation_report")
    page.locator("button").filter(has_text=re.compile(r"^Materialize$")).click()
    newest = "{ runsOrError(limit: 1) { ... on Runs { results { jobName status } } } }"
    deadline = time.monotonic() + PATIENCE
    run = {"jobName": "", "status": ""}
    while run["jobName"] != UI_JOB or run["status"] not in ("SUCCESS", "FAILURE"):
        assert time.monotonic() < deadline, run
        time.sleep(0.5)
        (run,) = ask(ui_url, newest)["runsOrError"]["results"]
    assert run["status"] == "SUCCESS"


@pytest.mark.slow
def test_interrupt_ends_every_process_and_a_taken_port_is_said(tmp_path: Path, pictures: Path) -> None:
    unmade = write_settings(tmp_path / "unmade.yaml", tiny_settings(pictures))
    with running_ui(unmade) as (ui, url):
        started = descendants(ui.pid)
        assert len(started) >= 4  # dagster dev, its code server, the webserver, the daemon
        port = url.rsplit(":", 1)[1]
        second = run_ui(unmade, "--port", port)
        assert second.returncode == 2
        (sentence,) = second.stderr.strip().splitlines()
        assert port in sentence
        os.kill(ui.pid, signal.SIGINT)
        assert ui.wait(timeout=PATIENCE) == 0
        assert alive(started) == set()


def test_wrong_config_is_one_sentence_and_exit_code_2(tmp_path: Path) -> None:
    done = run_ui(tmp_path / "none.yaml")
    assert done.returncode == 2
    assert done.stdout == ""
    (sentence,) = done.stderr.strip().splitlines()
    assert "none.yaml: there is no such file" in sentence


def test_a_captioners_tag_finds_what_was_made_with_it(page: Page, ui_url: str) -> None:
    open_tagged(page, ui_url, CAPTIONER)
    made_with_it = [f"captions/{CAPTIONER}", f"sheared/{CAPTIONER}", "sheared_captions", "training_set", "checkpoint"]
    for asset in [*made_with_it, "retrieval_metrics"]:
        expect(page.locator(f"a[href$='/assets/{asset}']").first).to_be_visible()
    assert page.locator("a[href$='/assets/raw_pairs']").count() == 0


def test_every_materialization_says_by_tags_what_made_it(ui_url: str) -> None:
    query = """{ assetNodes { assetKey { path } owners { ... on TeamAssetOwner { team } } kinds groupName
        assetMaterializations(limit: 50) { partition tags { key value } } } }"""
    nodes = {"/".join(node["assetKey"]["path"]): node for node in ask(ui_url, query)["assetNodes"]}
    made = {
        (name, each["partition"]): {tag["key"]: tag["value"] for tag in each["tags"]}
        for name, node in nodes.items()
        for each in node["assetMaterializations"]
    }
    for asset in ("sheared_captions", "training_set", "checkpoint", "retrieval_metrics"):
        tags = made[asset, "captioned"]
        assert (tags["recipe"], tags["shear"]) == ("captioned", "first-sentence"), asset
        assert f"captioner/{CAPTIONER}" in tags
        assert f"captioner/{CAPTIONER}" not in made[asset, "raw-only"]
    assert f"captioner/{CAPTIONER}" in made[f"captions/{CAPTIONER}", "shard-00001"]
    assert made[f"sheared/{CAPTIONER}", "first-sentence"]["shear"] == "first-sentence"
    for name, node in nodes.items():
        assert node["kinds"], name
        assert node["groupName"] != "default", name
        assert node["owners"] == [{"team": "tiny"}] or name == "settings", name


def test_recall_is_plotted_over_materializations(page: Page, ui_url: str) -> None:
    page.goto(f"{ui_url}/assets/retrieval_metrics")
    page.get_by_role("button", name="Plots").click()
    expect(page.get_by_text("scenes mean Recall@1").first).to_be_visible()
    expect(page.locator("canvas").first).to_be_visible()


def test_the_report_page_is_a_click_away(page: Page, ui_url: str) -> None:
    expect(open_report(page, ui_url).get_by_role("heading", level=1)).to_contain_text("tiny")


@pytest.mark.parametrize(
    ("question", "arguments", "said"),
    [
        ("status", [], "Everything is current"),
        pytest.param("why", ["captioned", "r1_i2t"], "first-sentence", marks=pytest.mark.slow),
    ],
)
def test_a_question_is_asked_in_the_launchpad(
    page: Page, ui_url: str, question: str, arguments: list[str], said: str
) -> None:
    expect(ask_in_launchpad(page, ui_url, question, arguments)).to_contain_text(said)
