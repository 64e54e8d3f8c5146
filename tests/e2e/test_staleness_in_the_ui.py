"""Every edit of the YAML, over the whole graph: what the real Dagster UI and `caploom status` say became stale.

A factory is really run once; then the YAML is edited, the code location reloaded as the UI's button does, and the
webserver asked of every partition of every asset.
"""

import copy
import json
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from take_screenshots import running_ui
from tiny_factory import CAPTIONER, run_headless, tiny_settings, write_settings

from caploom.config.factory import Factory
from caploom.questions.status.factory_status import State, factory_status

pytestmark = pytest.mark.slow

OTTER = "tiny-otter"
SHARDS = ("shard-00000", "shard-00001")
RECIPES = ("raw-only", "one", "two", "two-unsheared")
PATIENCE = 90  # seconds: the sensor's interval and a busy machine

Slots = set[tuple[str, str | None]]


def settings_with_two(pictures: Path) -> dict[str, Any]:
    """Two captioners, two shears and four recipes."""
    settings = tiny_settings(pictures)
    captioner = settings["captioners"][CAPTIONER]
    settings["captioners"][OTTER] = {
        **captioner,
        "model": f"demo:{OTTER}",
        "prompt": "User: Describe in English: GPT: <answer>",
    }
    settings["shears"]["words"] = [{"max_words": 6}]
    settings["recipes"] = {
        "raw-only": {"captioners": []},
        "one": {"captioners": [CAPTIONER], "shear": "first-sentence"},
        "two": {"captioners": "all", "shear": "words"},
        "two-unsheared": {"captioners": "all"},
    }
    return settings


def edited(settings: dict[str, Any], *path: str, value: Any) -> dict[str, Any]:
    settings = copy.deepcopy(settings)
    place = settings
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return settings


class Webserver:
    """The UI's own questions."""

    def __init__(self, url: str) -> None:
        self.url = url
        (self._repository,) = self.ask(
            "{ repositoriesOrError { ... on RepositoryConnection { nodes { name location { name } } } } }"
        )["repositoriesOrError"]["nodes"]

    def ask(self, query: str, **variables: Any) -> Any:
        body = json.dumps({"query": query, "variables": variables}).encode()
        request = urllib.request.Request(f"{self.url}/graphql", data=body, headers={"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=60) as answer:
            said = json.load(answer)
        assert "errors" not in said, said
        return said["data"]

    def reload(self) -> None:
        """As the button "Reload definitions" does."""
        answer = self.ask(
            "mutation($l: String!) { reloadRepositoryLocation(repositoryLocationName: $l) "
            "{ ... on WorkspaceLocationEntry { loadStatus locationOrLoadError { __typename } } } }",
            l=self._repository["location"]["name"],
        )
        assert answer["reloadRepositoryLocation"]["locationOrLoadError"]["__typename"] == "RepositoryLocation", answer

    def tick(self) -> str:
        """Have the sensor look now, as the UI's "Test sensor" does, instead of in half a minute; what it says."""
        selector = {
            "sensorName": "edited_settings",
            "repositoryName": self._repository["name"],
            "repositoryLocationName": self._repository["location"]["name"],
        }
        answer = self.ask(
            "mutation($s: SensorSelector!) { sensorDryRun(selectorData: $s, cursor: null) "
            "{ ... on DryRunInstigationTick { evaluationResult { skipReason error { message } } } } }",
            s=selector,
        )
        result = answer["sensorDryRun"]["evaluationResult"]
        assert result["error"] is None, result
        return str(result["skipReason"])

    def stale(self) -> Slots:
        """Every asset and partition that the UI calls stale."""
        found: Slots = set()
        nodes = self.ask("{ assetNodes { assetKey { path } partitionKeys isMaterializable } }")["assetNodes"]
        for node in nodes:
            if not node["isMaterializable"]:
                continue
            path = node["assetKey"]["path"]
            for partition in node["partitionKeys"] or [None]:
                answer = self.ask(
                    "query($k: AssetKeyInput!, $p: String) { assetNodeOrError(assetKey: $k) "
                    "{ ... on AssetNode { staleStatus(partition: $p) } } }",
                    k={"path": path},
                    p=partition,
                )
                if answer["assetNodeOrError"]["staleStatus"] == "STALE":
                    found.add(("/".join(path), partition))
        return found


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory, pictures: Path) -> Path:
    folder = tmp_path_factory.mktemp("staleness")
    run = run_headless(write_settings(folder / "tiny.yaml", settings_with_two(pictures)))
    assert run.code == 0, run.said
    return run.config


@pytest.fixture(scope="module")
def webserver(config: Path) -> Iterator[Webserver]:
    with running_ui(config) as (_, url):
        yield Webserver(url)


@pytest.fixture
def edit(config: Path) -> Iterator[Any]:
    """Edits the YAML for one test."""
    before = config.read_text(encoding="utf-8")

    def write(*path: str, value: Any) -> None:
        write_settings(config, edited(yaml.safe_load(before), *path, value=value))

    yield write
    config.write_text(before, encoding="utf-8")


def stale_by_status(config: Path) -> Slots:
    slots = factory_status(Factory.from_yaml(config)).slots
    return {(slot.asset, slot.partition) for slot in slots if slot.state is State.STALE}


CAPTIONS: Slots = {(f"captions/{CAPTIONER}", shard) for shard in SHARDS}
OTHER_CAPTIONS: Slots = {(f"captions/{OTTER}", shard) for shard in SHARDS}
TWO_S_DATA: Slots = {("sheared_captions", "two"), ("training_set", "two")}

EDITS = [
    # path, value, what the UI calls stale, what `caploom status` does where that says it elsewhere
    (("captioners", CAPTIONER, "prompt"), "What is in <image>?", CAPTIONS, CAPTIONS),
    (("captioners", OTTER, "seed"), 7, OTHER_CAPTIONS, OTHER_CAPTIONS),
    (("captioners", OTTER, "batch_size"), 8, set(), set()),
    (
        ("shears", "words"),
        [{"max_words": 5}],
        {(f"sheared/{name}", "words") for name in (CAPTIONER, OTTER)},
        {("sheared_captions", "two")},  # Dagster's `sheared/...` are the parts of what recipes have
    ),
    (
        ("shears", "first-sentence"),
        [{"max_words": 9}],
        {(f"sheared/{CAPTIONER}", "first-sentence")},
        {("sheared_captions", "one")},
    ),
    (("recipes", "two", "captioners"), [OTTER], TWO_S_DATA, TWO_S_DATA),
    (("recipes", "two", "mix"), {"raw_probability": 0.8}, {("training_set", "two")}, {("training_set", "two")}),
    (("recipes", "one", "filters"), ["no_empty"], {("training_set", "one")}, {("training_set", "one")}),
    (
        ("seeds",),
        [3],
        {("checkpoint", recipe) for recipe in RECIPES},
        {("checkpoint", recipe) for recipe in RECIPES},
    ),
    (
        ("trainers", "tiny", "steps"),
        3,
        {("checkpoint", recipe) for recipe in RECIPES},
        {("checkpoint", recipe) for recipe in RECIPES},
    ),
    (
        ("evaluation_sets", "scenes", "seed"),
        5,
        {("retrieval_metrics", recipe) for recipe in RECIPES},
        # The set is a slot of its own there; the step `retrieval_metrics` makes it.
        {("evaluation_sets", "scenes"), *(("retrieval_metrics", recipe) for recipe in RECIPES)},
    ),
    (("name",), "renamed", {("ablation_report", None)}, {("ablation_report", None)}),
]


def test_after_a_run_nothing_is_stale(webserver: Webserver, config: Path) -> None:
    webserver.reload()
    webserver.tick()
    assert webserver.stale() == set()
    assert stale_by_status(config) == set()


@pytest.mark.parametrize(("path", "value", "in_ui", "by_status"), EDITS, ids=[".".join(each[0]) for each in EDITS])
def test_an_edit_makes_stale_what_depends_on_it_and_nothing_else(
    webserver: Webserver, config: Path, edit: Any, path: Any, value: Any, in_ui: Slots, by_status: Slots
) -> None:
    edit(*path, value=value)
    webserver.reload()
    webserver.tick()
    assert webserver.stale() == in_ui
    assert stale_by_status(config) == by_status


def test_an_edit_taken_back_is_fresh_again(webserver: Webserver, config: Path) -> None:
    webserver.reload()
    webserver.tick()
    assert webserver.stale() == set()


def test_the_daemon_notices_an_edit_by_itself(webserver: Webserver, edit: Any) -> None:
    edit("recipes", "two", "mix", value={"raw_probability": 0.3})
    deadline = time.monotonic() + PATIENCE
    while webserver.stale() != {("training_set", "two")}:
        assert time.monotonic() < deadline, webserver.stale()
        time.sleep(2)
