"""A factory that lives of its inbox, with real services: what it has made, and whether each of it is there once."""

import json
import time
import urllib.request
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fed_factory import fed_settings
from services import Services
from tiny_factory import write_settings

from caploom.config.factory import Factory
from caploom.stages.captions import read_captions
from caploom.stages.graph import Graph
from caploom.stages.raw_pairs import ingested_shards, read_pairs
from caploom.stages.stage import Ref
from caploom.storage.records import image_identity
from caploom.storage.tables import read_table
from caploom.training_set.write import training_files
from dagster_project.instance import instance_home

PICTURES = 200
PATIENCE = 900  # seconds until everything must have happened, on a busy machine


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
