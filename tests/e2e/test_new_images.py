"""New pictures in the inbox of a factory that takes care of itself: real services, a real browser, real kills."""

import json
import random
import time
import urllib.request
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from fed_factory import draw_pictures, drop, fed_settings
from services import Services
from tiny_factory import write_settings

from caploom.captioning.caption_shard import captions_plan, read_captions
from caploom.factory import Factory
from caploom.readers.ingest import ingested_shards, read_pairs
from caploom.records import image_identity
from caploom.tables import read_table
from caploom.training_set.merge import training_files, training_set_plan
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

    def captioned(self) -> bool:
        factory = self.factory
        shards = [each.manifest.configuration["shard"] for each in ingested_shards(factory)]
        return sum(len(read_pairs(each)) for each in ingested_shards(factory)) >= PICTURES and all(
            factory.store.find(captions_plan(factory, captioner, shard)) is not None
            for captioner in factory.config.captioners
            for shard in shards
        )

    def merged(self) -> bool:
        factory = self.factory
        if not self.captioned():
            return False
        return all(self.partitions("training_set")["numMaterialized"] == 2 for _ in "1") and all(
            _is_made(factory, recipe) for recipe in ("raw-only", "four")
        )


def _is_made(factory: Factory, recipe: str) -> bool:
    try:
        plan = training_set_plan(factory, factory.config.recipe(recipe))
    except Exception as error:
        if type(error).__name__ != "MissingArtifactError":
            raise
        return False
    return factory.store.find(plan) is not None


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


def test_ten_kills_lose_and_double_nothing(
    tmp_path_factory: pytest.TempPathFactory, pictures: Path, drawn: list[tuple[Path, str]]
) -> None:
    """SIGKILL to the daemon, the code server and a run's worker, at random moments, each started again by a keeper."""
    fed = Fed(tmp_path_factory.mktemp("killed"), pictures)
    moments = random.Random(SEED)
    killed: Counter[str] = Counter()
    try:
        fed.start()
        drop(drawn[:PICTURES], fed.inbox)
        while killed.total() < KILLS:
            time.sleep(moments.uniform(1, 14))
            victim = moments.choice(["daemon", "code", "run", "run"])
            if victim != "run":
                fed.services.kill(victim)
                time.sleep(moments.uniform(0, 3))
                fed.services.start(victim)
            else:
                workers = fed.services.run_workers()
                if not workers:
                    continue  # nothing runs at this moment: it is no kill
                try:
                    moments.choice(workers).kill()
                except psutil.NoSuchProcess:
                    continue
            killed[victim] += 1
        wait_for(fed.merged, "all pictures captioned, sheared and merged")
    finally:
        fed.services.stop()
        print(f"killed: {dict(killed)}")
    assert set(killed) == {"daemon", "code", "run"}
    check_everything_once(fed.factory, drawn[:PICTURES])


def check_everything_once(factory: Factory, pictures: list[tuple[Path, str]]) -> None:
    """Every picture is one pair, has one caption of each captioner, and stands once in each training set."""
    expected = Counter(image_identity(path.read_bytes()) for path, _ in pictures)
    assert set(expected.values()) == {1}
    shards = ingested_shards(factory)
    assert Counter(each for shard in shards for each in read_pairs(shard)["image_id"].to_pylist()) == expected
    assert all(shard.manifest.rows is not None and shard.manifest.rows.holds for shard in shards)
    for captioner in factory.config.captioners:
        made = [
            factory.store.require(
                captions_plan(factory, captioner, shard.manifest.configuration["shard"]), make_with="the daemon"
            )
            for shard in shards
        ]
        assert all(each.manifest.rows is not None and each.manifest.rows.holds for each in made)
        assert Counter(image for each in made for image in read_captions(each)["image_id"].to_pylist()) == expected
    for recipe in factory.config.expanded_recipes():
        training_set = factory.store.require(training_set_plan(factory, recipe), make_with="the daemon")
        files = training_files(training_set)
        assert Counter(image for file in files for image in read_table(file)["image_id"].to_pylist()) == expected
