"""A step is one declaration and one line of the registry: status, plan, lineage, reproduce and Dagster know it then.

`TOY` is all that there is of it, and an example of how a step is declared.
"""

import shutil
from dataclasses import replace
from pathlib import Path

import dagster as dg
import pytest
from asked_factory import captioned, merged, write_factory

from caploom.config.factory import Factory
from caploom.config.factory_config import load_config
from caploom.questions.cost.plan_cost import plan_cost
from caploom.questions.lineage.lineage_graph import artifact_lineage
from caploom.questions.status.factory_status import factory_status
from caploom.reproduce.reproduce import reproduce
from caploom.stages.artifact_names import find_artifact
from caploom.stages.graph import Graph
from caploom.stages.raw_pairs import read_pairs
from caploom.stages.registry import STAGES
from caploom.stages.shards import shard_names
from caploom.stages.stage import Key, Making, Ref, Stage
from caploom.storage.store import Draft
from caploom.training_set.write import training_files
from dagster_project.definitions import definitions_of
from dagster_project.partitions import SHARD

RECIPES = ("raw-only", "sheared")


def _build(making: Making, draft: Draft) -> None:
    """How many raw pairs a recipe's training set was merged of."""
    (training_set,) = making.inputs("training_set")
    pairs = sum(len(read_pairs(each)) for each in making.inputs("raw_pairs"))
    text = f"{pairs} pairs, {len(training_files(training_set))} files\n"
    (draft.folder / "counts.txt").write_text(text, encoding="utf-8")


def _inputs(graph: Graph, key: Key) -> list[Ref]:
    return [Ref("training_set", key), *(Ref("raw_pairs", shard) for shard in graph.keys("raw_pairs"))]


TOY = Stage(
    kind="toy",
    code_version="1",
    axes=("recipe",),
    keys=lambda graph: [(name,) for name in graph.recipes],
    build=_build,
    upstream=("training_set", "raw_pairs"),
    inputs=_inputs,
)
NEWER = replace(TOY, code_version="2")


@pytest.fixture(autouse=True)
def _registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(STAGES, "toy", f"{__name__}:TOY")


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The YAML of a factory whose training sets are merged."""
    path = write_factory(tmp_path_factory.mktemp("toy"))
    factory = captioned(path)
    for recipe in RECIPES:
        merged(factory, recipe)
    return path


@pytest.fixture
def factory(path: Path) -> Factory:
    """The same with the step made of one recipe."""
    factory = Factory.from_config(load_config(path))
    Graph(factory).make(Ref("toy", ("sheared",)))
    return factory


def states(factory: Factory) -> dict[str, str]:
    return {slot.label: str(slot.state) for slot in factory_status(factory).slots if slot.asset == "toy"}


def test_status_has_a_slot_for_each_of_its_artifacts(factory: Factory, monkeypatch: pytest.MonkeyPatch) -> None:
    assert states(factory) == {"toy [raw-only]": "missing", "toy [sheared]": "current"}
    monkeypatch.setitem(STAGES, "toy", f"{__name__}:NEWER")
    assert states(factory) == {"toy [raw-only]": "missing", "toy [sheared]": "stale"}


def test_a_plan_counts_what_is_still_to_be_made(factory: Factory) -> None:
    assert [(item.done, item.to_do) for item in plan_cost(factory).of("toy")] == [(1, 1)]


def test_a_lineage_goes_back_through_its_inputs(factory: Factory) -> None:
    graph = artifact_lineage(factory.store, "toy [sheared]")
    inputs = {graph.nodes[edge.source].label for edge in graph.edges if edge.made == graph.root}
    assert inputs == {"training_set [sheared]", *(f"raw_pairs [{shard}]" for shard in shard_names(factory))}
    assert "shards" in {graph.nodes[address].kind for address in graph.back}


def test_it_is_reproduced_byte_for_byte(factory: Factory, tmp_path: Path) -> None:
    result = reproduce(factory, find_artifact(factory.store, "toy/sheared"), tmp_path / "again")
    assert result.outcome == "byte-identical"
    assert [file.name for file in result.files] == ["counts.txt"]


def test_dagster_has_an_asset_of_it_that_is_materialized(path: Path) -> None:
    factory, definitions = Factory.from_yaml(path), definitions_of(path)
    node = definitions.resolve_asset_graph().get(dg.AssetKey("toy"))
    assert {key.to_user_string() for key in node.parent_keys} == {"training_set", "raw_pairs", "settings"}
    assert node.partitions_def.get_partition_keys() == list(RECIPES)
    assert node.code_version == TOY.code_version

    shutil.rmtree(factory.store.root / "toy", ignore_errors=True)
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions(SHARD, shard_names(factory))
        result = dg.materialize(
            [each for each in definitions.assets or [] if isinstance(each, dg.AssetsDefinition | dg.AssetSpec)],
            selection=["toy"],
            partition_key="sheared",
            instance=instance,
            resources=definitions.resources,
        )
    (event,) = result.asset_materializations_for_node("toy")
    made = find_artifact(factory.store, "toy [sheared]")
    assert event.metadata["artifact"].value == made.manifest.address
    assert event.metadata["reused"].value is False
    assert event.tags["recipe"] == "sheared"
    assert event.tags["dagster/data_version"] == made.data_version
