"""New pictures in the inbox of a factory that takes care of itself: real services, a real browser, real kills."""

import json
import os
import random
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import psutil
import pytest
from fed_factory import draw_pictures, drop, fed_settings
from playwright.sync_api import expect
from services import Services
from take_screenshots import new_page, open_automation, open_partition, take_automation
from tiny_factory import write_settings

from caploom.config.factory import Factory
from caploom.questions.results.data_versions import data_versions
from caploom.stages.captions import read_captions
from caploom.stages.graph import Graph
from caploom.stages.raw_pairs import ingested_shards, read_pairs
from caploom.stages.shards import INBOX, list_shards
from caploom.stages.source_rows import shard_rows
from caploom.stages.stage import Ref
from caploom.storage.records import image_identity
from caploom.storage.tables import read_table
from caploom.training_set.write import training_files
from dagster_project.instance import instance_home

pytestmark = pytest.mark.slow

PICTURES = 200
PATIENCE = 900  # seconds until everything must have happened, on a busy machine
KILLS = 10
SEED = 7


class Fed:
    """A running factory and its inbox."""

    def __init__(self, folder: Path, pictures: Path, **automation: Any) -> None:
        self.config = write_settings(folder / "fed.yaml", fed_settings(pictures, **automation))
        self.inbox = folder / "inbox"
        self.inbox.mkdir()
        self.services = Services(self.config, instance_home(self.factory.config), folder)

    @property
    def factory(self) -> Factory:
        return Factory.from_yaml(self.config)

    def start(self) -> None:
        self.services.start("code")
        self.services.start("webserver")
        wait_for(lambda: self.ask("{ version }"), "the webserver answers", 120)
        self.services.start("daemon")

    def ask(self, query: str) -> Any:
        body = json.dumps({"query": query}).encode()
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(f"{self.services.url}/graphql", data=body, headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                said = json.load(answer)
        except OSError:
            return None
        assert "errors" not in said, said
        return said["data"]

    def runs(self) -> list[dict[str, Any]]:
        said = self.ask(
            "{ runsOrError { ... on Runs { results { runId status jobName tags { key value }"
            " stepStats { stepKey startTime endTime } } } } }"
        )
        return list(said["runsOrError"]["results"]) if said else []

    def partitions(self, asset: str) -> Counter[str]:
        """How many partitions of an asset are materialized, missing, failed."""
        path = json.dumps(asset.split("/"))
        said = self.ask(
            f"{{ assetNodeOrError(assetKey: {{path: {path}}}) {{ ... on AssetNode {{ partitionStats"
            " { numMaterialized numPartitions numFailed numMaterializing } } } }"
        )
        return Counter((said or {}).get("assetNodeOrError", {}).get("partitionStats") or {})

    def stale(self, asset: str) -> dict[str, str]:
        """What the UI says of each recipe's partition of an asset."""
        said = {
            recipe: self.ask(
                f"{{ assetNodeOrError(assetKey: {{path: {json.dumps([asset])}}}) {{ ... on AssetNode"
                f" {{ staleStatus(partition: {json.dumps(recipe)}) }} }} }}"
            )
            for recipe in ("raw-only", "four")
        }
        return {recipe: answer["assetNodeOrError"]["staleStatus"] if answer else "" for recipe, answer in said.items()}

    def report_is_made(self) -> bool:
        return bool(self.factory.store.list("ablation_report"))

    def captioned(self, pictures: int) -> bool:
        factory = self.factory
        shards = [each.manifest.configuration["shard"] for each in ingested_shards(factory)]
        return sum(len(read_pairs(each)) for each in ingested_shards(factory)) >= pictures and all(
            Graph(factory).find(Ref("captions", (captioner, shard))) is not None
            for captioner in factory.config.captioners
            for shard in shards
        )

    def merged(self, pictures: int = PICTURES) -> bool:
        factory = self.factory
        return self.captioned(pictures) and all(_is_made(factory, recipe) for recipe in ("raw-only", "four"))


def _is_made(factory: Factory, recipe: str) -> bool:
    return Graph(factory).find(Ref("training_set", (recipe,))) is not None


def wait_for(happened: Callable[[], Any], what: str, seconds: float = PATIENCE) -> Any:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = happened()
        if found:
            return found
        time.sleep(1)
    raise AssertionError(f"After {seconds:.0f} s still not: {what}")


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


def test_ten_kills_lose_and_double_nothing(
    tmp_path_factory: pytest.TempPathFactory, pictures: Path, drawn: list[tuple[Path, str]]
) -> None:
    """SIGKILL to the daemon, the code server and runs' workers, at random moments; each service is started again."""
    fed = Fed(tmp_path_factory.mktemp("killed"), pictures)
    moments = random.Random(SEED)
    victims = ["daemon"] * 3 + ["code"] * 3 + ["run"] * (KILLS - 6)
    moments.shuffle(victims)
    try:
        fed.start()
        drop(drawn[:PICTURES], fed.inbox)
        for victim in victims:
            time.sleep(moments.uniform(1, 12))
            if victim == "run":
                wait_for(lambda: kill_a_worker(fed.services, moments), "a run is at work")
            else:
                fed.services.kill(victim)
                time.sleep(moments.uniform(0, 3))
                fed.services.start(victim)
        wait_for(fed.merged, "all pictures captioned, sheared and merged")
    finally:
        fed.services.stop()
    check_everything_once(fed.factory, drawn[:PICTURES])


def kill_a_worker(services: Services, moments: random.Random) -> bool:
    """SIGKILL to one process of a run, whichever, if there is one."""
    workers = services.run_workers()
    if not workers:
        return False
    try:
        moments.choice(workers).kill()
    except psutil.NoSuchProcess:
        return False
    return True


def check_everything_once(factory: Factory, pictures: list[tuple[Path, str]]) -> None:
    """Every picture is one pair, has one caption of each captioner, and stands once in each training set."""
    expected = Counter(image_identity(path.read_bytes()) for path, _ in pictures)
    assert set(expected.values()) == {1}
    shards = ingested_shards(factory)
    assert Counter(each for shard in shards for each in read_pairs(shard)["image_id"].to_pylist()) == expected
    assert all(shard.manifest.rows is not None and shard.manifest.rows.holds for shard in shards)
    for captioner in factory.config.captioners:
        made = [
            Graph(factory).require(Ref("captions", (captioner, shard.manifest.configuration["shard"])))
            for shard in shards
        ]
        assert all(each.manifest.rows is not None and each.manifest.rows.holds for each in made)
        assert Counter(image for each in made for image in read_captions(each)["image_id"].to_pylist()) == expected
    for recipe in factory.config.expanded_recipes():
        training_set = Graph(factory).require(Ref("training_set", (recipe.name,)))
        files = training_files(training_set)
        assert Counter(image for file in files for image in read_table(file)["image_id"].to_pylist()) == expected
