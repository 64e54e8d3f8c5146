"""How fast each kind of work was when it ran in this store: from manifests alone, none ever made up.

Manifests of an earlier version of Caploom may lack a figure: they are passed over.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from heapq import nlargest
from typing import Any

from caploom.stages.graph import Graph
from caploom.stages.stage import Alike, Cost, Key, Measured, Stage
from caploom.storage.manifest import MANIFEST, Manifest

_NEWEST = 200  # manifests looked at, newest first: a store of millions of captions has thousands


@dataclass(frozen=True)
class Rate:
    """A measured speed.

    Attributes:
        per_second: units a second.
        basis: on what it was measured, in words.
        start: seconds that each piece of work took before and after its units, such as starting a training.
    """

    per_second: float
    basis: str
    start: float = 0.0

    def seconds(self, units: float, pieces: int) -> float:
        """What these units take, in that many pieces of work."""
        return units / self.per_second + self.start * pieces

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return {"per_second": round(self.per_second, 3), "start_seconds": round(self.start, 3), "basis": self.basis}


def rate_of(graph: Graph, stage: Stage, cost: Cost, key: Key) -> Rate | None:
    """How fast an artifact will be made: as those were that are the most alike; None where nothing like it was made."""
    kinds = dict.fromkeys((stage.kind, *cost.also))
    for alike in cost.alike(graph, key):
        rate = _rate([run for kind in kinds for run in _runs(graph, kind, cost, alike)], alike.words)
        if rate is not None:
            return rate
    return None


def _runs(graph: Graph, kind: str, cost: Cost, alike: Alike) -> Iterator[tuple[Measured, str]]:
    """What was timed of a kind, each with the device that it ran on."""
    for manifest in _newest(graph, kind, alike.below):
        run = cost.measured(graph, manifest) if alike.which(graph, manifest) else None
        if run is not None and run.units > 0 and run.seconds > 0:
            yield run, manifest.device


def _newest(graph: Graph, kind: str, below: Key) -> list[Manifest]:
    """The newest manifests of a kind below the beginning of a name; damaged ones are named by the graph's view."""
    rest = [None] * (len(graph.stage(kind).parts) - len(below))
    newest = nlargest(
        _NEWEST,
        graph.view.addresses(kind, *below, *rest),
        key=lambda address: (graph.store.root / address / MANIFEST).stat().st_mtime_ns,
    )
    found = (graph.view.read(address) for address in newest)
    return [artifact.manifest for artifact in found if artifact is not None]


def _rate(runs: list[tuple[Measured, str]], what: str) -> Rate | None:
    """The rate over all of them together; None where there are none."""
    if not runs:
        return None
    units, seconds = sum(run.units for run, _ in runs), sum(run.seconds for run, _ in runs)
    devices = ", ".join(sorted({device for _, device in runs}))
    start = sum(run.start for run, _ in runs) / len(runs)
    return Rate(units / seconds, f"{units:,.0f} {what}, on {devices}", start)
