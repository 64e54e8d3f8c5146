"""Finishes artifacts of a graph by their manifests alone, and counts what a store is asked."""

from collections import Counter
from pathlib import Path
from typing import Any

from caploom.config.factory import Factory
from caploom.stages.graph import Graph
from caploom.stages.stage import Ref
from caploom.storage.manifest import MANIFEST, Manifest, RowCount
from caploom.storage.store import Artifact, Plan, Store


class CountingStore(Store):
    """A store that counts the manifests that are read and the kinds that are listed."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.reads: Counter[str] = Counter()
        self.listings: Counter[str] = Counter()
        self.pulls: Counter[str] = Counter()
        self.writes: Counter[str] = Counter()

    def read(self, address: str) -> Artifact | None:
        self.reads[address] += 1
        return super().read(address)

    def addresses(self, *parts: str) -> Any:
        self.listings[parts[0]] += 1
        return super().addresses(*parts)

    def folders(self, address: str) -> Any:
        self.listings[address.split("/")[0]] += 1
        return super().folders(address)

    def pull_shared(self, pattern: str) -> None:
        self.pulls[pattern] += 1

    def writing(self, plan: Plan) -> Any:
        self.writes[plan.address] += 1
        return super().writing(plan)


def counted(factory: Factory) -> tuple[Factory, CountingStore]:
    """The factory on a store that counts."""
    store = CountingStore(factory.store.root)
    return Factory(factory.config, store), store


def finish(graph: Graph, ref: Ref, **summary: Any) -> None:
    """Have an artifact be there, as its manifest says, without any file."""
    finish_plan(graph, graph.plan(ref), summary)
    found = graph.store.read(graph.plan(ref).address)
    assert found is not None
    graph.made(ref, found)


def finish_plan(graph: Graph, plan: Plan, summary: dict[str, Any]) -> None:
    """The same of a plan."""
    manifest = Manifest(
        kind=plan.kind,
        address=plan.address,
        fingerprint=plan.fingerprint,
        data_version=plan.fingerprint,
        code_version=plan.code_version,
        configuration=plan.configuration,
        inputs=list(plan.inputs),
        rows=RowCount(unit="rows", rows_in=10, rows_out=10, rows_failed=0),
        summary=summary,
        started="2026-11-30T12:00:00+00:00",
        seconds=1.0,
    )
    folder = graph.store.path(plan.address)
    folder.mkdir(parents=True)
    (folder / MANIFEST).write_text(manifest.model_dump_json())


def finish_shards(graph: Graph, count: int) -> None:
    """Have so many shards be cut from the source."""
    stage = graph.stage("shards")
    for number in range(count):
        shard = f"shard-{number:05d}"
        plan = Plan(
            kind="shards",
            name=stage.name(graph, (shard,)),
            code_version=stage.code_version,
            configuration={"shard": shard, "reader": {}, "rows": f"{number}"},
        )
        finish_plan(graph, plan, {"rows": 10})


def finish_everything(factory: Factory, shards: int) -> None:
    """Have every recipe be measured, over so many shards."""
    graph = Graph(factory)
    finish_shards(graph, shards)
    for kind in ("raw_pairs", "captions", "sheared", "sheared_captions", "training_set", "checkpoint"):
        for key in graph.keys(kind):
            ref = Ref(kind, key)
            if graph.find(ref) is None:
                finish(graph, ref, images=10, captions=10)
    for name in factory.config.evaluation_sets:
        graph.make(Ref("evaluation_pairs", (name,)))
    for key in graph.keys("retrieval_metrics"):
        finish(graph, Ref("retrieval_metrics", key), measurements=[])
