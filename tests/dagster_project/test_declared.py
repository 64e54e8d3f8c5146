"""Assets that nobody wrote: of each layout that a step's axes can have, declared and materialized."""

from pathlib import Path

import dagster as dg
import pytest
from asked_factory import captioned, write_factory

from caploom.stages.checks import ROWS_ACCOUNTED, CheckOutcome
from caploom.stages.graph import Graph
from caploom.stages.registry import STAGES
from caploom.stages.shards import shard_names
from caploom.stages.stage import Checks, Making, Ref, Stage
from caploom.storage.store import Artifact, Draft
from caploom.storage.tables import count_rows
from dagster_project.definitions import definitions_of
from dagster_project.partitions import SHARD, shard_range_tags

SHARDS = ["shard-00000", "shard-00001"]


def _build(making: Making, draft: Draft) -> None:
    """Adds up the rows of its inputs."""
    rows = [each.manifest.rows.rows_out for each in making.inputs() if each.manifest.rows is not None]
    (draft.folder / "count.txt").write_text(str(sum(rows)), encoding="utf-8")
    draft.rows = count_rows("rows", sum(rows), sum(rows), [])


def _check(graph: Graph, artifact: Artifact) -> list[CheckOutcome]:
    return [CheckOutcome(ROWS_ACCOUNTED, bool(artifact.manifest.inputs), "It has inputs.")]


CHECKS = Checks((ROWS_ACCOUNTED,), _check)
PAIRS = Stage(
    kind="pair_counts",
    code_version="7",
    axes=("shard",),
    keys=lambda graph: graph.keys("raw_pairs"),
    build=_build,
    upstream=("raw_pairs",),
    inputs=lambda graph, key: [Ref("raw_pairs", key)],
    checks=CHECKS,
)
CAPTIONS = Stage(
    kind="caption_counts",
    code_version="7",
    axes=("captioner", "shard"),
    keys=lambda graph: graph.keys("captions"),
    build=_build,
    upstream=("captions",),
    inputs=lambda graph, key: [Ref("captions", key)],
    checks=CHECKS,
)
TOTAL = Stage(
    kind="total",
    code_version="7",
    axes=(),
    keys=lambda graph: [()],
    build=_build,
    upstream=("pair_counts", "caption_counts"),
    inputs=lambda graph, key: [Ref(kind, each) for kind in TOTAL.upstream for each in graph.keys(kind)],
    checks=CHECKS,
)
SUMS = Stage(
    kind="sums",
    code_version="7",
    axes=("captioner", "shear"),
    keys=lambda graph: [(captioner, "first") for captioner in graph.config.captioners],
    build=_build,
    upstream=("caption_counts",),
    inputs=lambda graph, key: [Ref("caption_counts", (key[0], shard)) for shard in graph.shards],
)


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The YAML of a factory whose shards are captioned, with four more steps."""
    path = write_factory(tmp_path)
    captioned(path)
    for name in ("PAIRS", "CAPTIONS", "TOTAL", "SUMS"):
        monkeypatch.setitem(STAGES, globals()[name].kind, f"{__name__}:{name}")
    return path


def test_keys_partitions_edges_and_mappings_follow_from_the_axes(path: Path) -> None:
    graph = definitions_of(path).resolve_asset_graph()
    found = {
        key.to_user_string(): (
            type(graph.get(key).partitions_def).__name__,
            {
                parent.to_user_string(): type(graph.get(key).partition_mappings.get(parent)).__name__
                for parent in graph.get(key).parent_keys
            },
        )
        for key in graph.get_all_asset_keys()
        if key.path[0] in ("pair_counts", "caption_counts", "total", "sums")
    }
    assert found == {
        "pair_counts": ("DynamicPartitionsDefinition", {"raw_pairs": "NoneType"}),
        "caption_counts/colours": ("DynamicPartitionsDefinition", {"captions/colours": "NoneType"}),
        "total": (
            "NoneType",
            {"pair_counts": "AllPartitionMapping", "caption_counts/colours": "AllPartitionMapping"},
        ),
        "sums/colours": ("StaticPartitionsDefinition", {"caption_counts/colours": "AllPartitionMapping"}),
    }
    node = graph.get(dg.AssetKey("pair_counts"))
    assert node.code_version == "7"
    assert node.description == "Adds up the rows of its inputs."
    assert [key.name for key in node.check_keys] == [ROWS_ACCOUNTED]


def test_each_is_materialized_with_its_checks_data_versions_and_counts(path: Path) -> None:
    definitions = definitions_of(path)
    assets = [each for each in definitions.assets or [] if isinstance(each, dg.AssetsDefinition | dg.AssetSpec)]
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions(SHARD, shard_names(definitions.resources["factory"].open()))

        def run(key: str, **options) -> dg.ExecuteInProcessResult:
            chosen = [dg.AssetKey(key.split("/"))]
            resources = definitions.resources
            return dg.materialize(assets, selection=chosen, instance=instance, resources=resources, **options)

        for key in ("pair_counts", "caption_counts/colours"):
            result = run(key, tags=shard_range_tags(*SHARDS))
            assert all(check.passed for check in result.get_asset_check_evaluations())
            records = [
                instance.fetch_materializations(
                    dg.AssetRecordsFilter(asset_key=dg.AssetKey(key.split("/")), asset_partitions=[shard]), limit=1
                ).records[0]
                for shard in SHARDS
            ]
            events = [record.asset_materialization for record in records]
            assert [event.metadata["rows_out"].value for event in events] == [10, 5]
            assert len({event.tags["dagster/data_version"] for event in events}) == 2
        (total,) = run("total").get_asset_materialization_events()
        assert total.materialization.metadata["rows_out"].value == 30
        (sums,) = run("sums/colours", partition_key="first").get_asset_materialization_events()
        assert sums.materialization.metadata["rows_out"].value == 15
        assert sums.materialization.tags["captioner/colours"] == ""
