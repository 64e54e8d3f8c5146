"""New pictures in the inbox of a factory that takes care of itself: real services, a real browser."""

import os
import threading
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from fed_factory import draw_pictures, drop
from fed_services import PICTURES, Fed, check_everything_once, wait_for
from playwright.sync_api import expect
from take_screenshots import new_page, open_automation, open_partition, take_automation

from caploom.config.factory import Factory
from caploom.questions.results.data_versions import data_versions
from caploom.stages.raw_pairs import ingested_shards
from caploom.stages.shards import INBOX, list_shards
from caploom.stages.source_rows import shard_rows

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Path, str]]:
    return draw_pictures(tmp_path_factory.mktemp("drawn"), PICTURES + 60)


def test_new_pictures_go_all_the_way_by_themselves(
    tmp_path_factory: pytest.TempPathFactory, pictures: Path, drawn: list[tuple[Path, str]], browser: Any
) -> None:
    """200 pictures, one of them written slowly; then a few that are too few to train again; then enough."""
    fed = Fed(tmp_path_factory.mktemp("fed"), pictures, retrain={"when": "growth", "growth_percent": 10})
    try:
        fed.start()
        slow, quick = drawn[0], drawn[1:PICTURES]
        drop(quick, fed.inbox)
        writer = threading.Thread(target=write_slowly, args=(*slow, fed.inbox, seconds := 12.0))
        began = time.monotonic()
        writer.start()
        while writer.is_alive():
            assert slow[0].name not in names_taken(fed.factory), "half a file was taken"
            time.sleep(0.5)
        assert time.monotonic() - began >= seconds
        wait_for(lambda: fed.merged(), "all pictures captioned, sheared and merged")
        wait_for(lambda: fed.partitions("retrieval_metrics")["numMaterialized"] == 2, "both recipes measured")
        wait_for(lambda: fed.report_is_made(), "the report is made")
        check_everything_once(fed.factory, drawn[:PICTURES])
        assert all(not shard.manifest.rows.rows_failed for shard in ingested_shards(fed.factory) if shard.manifest.rows)
        check_the_pool(fed.runs())
        check_reasons(fed.runs())
        assert fed.stale("checkpoint") == {"raw-only": "FRESH", "four": "FRESH"}

        drop(drawn[PICTURES : PICTURES + 10], fed.inbox)
        wait_for(lambda: fed.merged(PICTURES + 10), "ten more merged")
        assert fed.stale("checkpoint") == {"raw-only": "STALE", "four": "STALE"}  # 5 %: out of date, by policy
        check_everything_once(fed.factory, drawn[: PICTURES + 10])
        see_it_in_the_browser(browser, fed.services.url)

        drop(drawn[PICTURES + 10 : PICTURES + 40], fed.inbox)
        wait_for(lambda: fed.merged(PICTURES + 40), "thirty more merged")
        wait_for(lambda: PICTURES + 40 in measured_on(fed.factory), "trained again, having grown by 20 %")
        assert len(measured_on(fed.factory)) >= 2
        assert PICTURES + 10 not in measured_on(fed.factory)  # too few more to be trained on
    finally:
        fed.services.stop()


def measured_on(factory: Factory) -> list[int]:
    """The images of each version of the data that the captioned recipe was measured on."""
    return [version.images for version in data_versions(factory, "four").versions]


def write_slowly(path: Path, caption: str, inbox: Path, seconds: float) -> None:
    """A writer of ten chunks, none of them long after the one before."""
    (inbox / f"{path.stem}.txt").write_text(caption, encoding="utf-8")
    data = path.read_bytes()
    size = len(data) // 10 + 1
    for start in range(0, len(data), size):
        time.sleep(seconds / 10)
        with (inbox / path.name).open("ab") as file:
            file.write(data[start : start + size])


def names_taken(factory: Factory) -> set[str]:
    return {row.image for listing in list_shards(factory, INBOX) for row in shard_rows(listing)}


def check_the_pool(runs: list[dict[str, Any]]) -> None:
    """No two captioners were ever at work at once: the pool has one place."""
    times = sorted(
        (step["startTime"], step["endTime"])
        for run in runs
        for step in run["stepStats"]
        if step["stepKey"].startswith("captions__") and step["endTime"]
    )
    assert len(times) >= 4
    assert all(before[1] <= after[0] for before, after in pairwise(times)), times


def check_reasons(runs: list[dict[str, Any]]) -> None:
    """Every run says what it was launched for."""
    reasons = [next((tag["value"] for tag in run["tags"] if tag["key"] == "caploom/why"), None) for run in runs]
    assert None not in reasons
    assert {
        "a new shard has no captions yet",
        "there are new images or captions",
        "a recipe was measured",
    } <= set(reasons)
    assert any(str(reason).endswith("images and was never trained") for reason in reasons)


def see_it_in_the_browser(browser: Any, url: str) -> None:
    """What a person finds: the automations with their switches, and a recipe's training set with its captions."""
    page = new_page(browser, 1500, 720)
    names = ("inbox", "caption_new_shards", "merge_new_captions", "retrain_when_grown", "retry_failed_rows", "alerts")
    for name in open_automation(page, url, names):
        assert name.is_visible()
    if folder := os.environ.get("CAPLOOM_PICTURES"):  # the documentation's picture of it
        take_automation(page, url, Path(folder) / "automation.png")
    open_partition(page, url, "training_set", "four")
    expect(page.get_by_text("rows_out", exact=True).first).to_be_visible()
    expect(
        page.get_by_text(f"{5 * (PICTURES + 10):,}").or_(page.get_by_text(str(5 * (PICTURES + 10)))).first
    ).to_be_visible()
    page.close()
