"""A lineage with shards folded: artifacts that differ only in their shard are one group."""

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from caploom.common.text import counted
from caploom.questions.lineage.lineage_graph import LineageGraph, LineageNode
from caploom.stages.registry import sharded


@dataclass(frozen=True)
class LineageGroup:
    """Artifacts of one family, or a single one, in the order of their shards."""

    key: str
    nodes: tuple[LineageNode, ...]

    @property
    def first(self) -> LineageNode:
        """The first of its artifacts, which represents what all share."""
        return self.nodes[0]

    @property
    def title(self) -> str:
        """The group's title: an artifact's label, or the family's with its shards."""
        first = self.first
        if len(self.nodes) == 1:
            return first.label
        *name, last = first.address.split("/")[:-2]  # without shard and fingerprint
        fingerprint = sharded()[first.kind]
        called = f"{'/'.join(name)} ({fingerprint} {last})" if fingerprint else "/".join([*name, last])
        return f"{called}: {shards_in_words([node.shard or '' for node in self.nodes])}"

    @property
    def name(self) -> str:
        """The title, and for a single artifact its fingerprint."""
        return self.title if len(self.nodes) > 1 else f"{self.title}  {self.first.fingerprint}"

    @property
    def rows(self) -> str:
        """`2,500,000 images, 12 failed`; empty where there are no counts."""
        counts = [node for node in self.nodes if node.rows_out is not None]
        if not counts:
            return ""
        out, failed = sum(node.rows_out or 0 for node in counts), sum(node.rows_failed or 0 for node in counts)
        return counted(out, counts[0].unit) + (f", {failed:,} failed" if failed else "")

    @property
    def seconds(self) -> float:
        """The seconds of all its artifacts together."""
        return sum(node.seconds for node in self.nodes)

    @property
    def started(self) -> str:
        """When the first of them was started."""
        return min((node.started for node in self.nodes if node.started), default="")


@dataclass(frozen=True)
class GroupedLineage:
    """The groups of a lineage by their keys, and the edges between them.

    `sources[key]` are the groups that a group was made from, `made[key]` those that were made from it, both in the
    order of the manifests' inputs.
    """

    root: str
    groups: dict[str, LineageGroup]
    sources: dict[str, list[str]]
    made: dict[str, list[str]]


def grouped_lineage(graph: LineageGraph, *, fold: bool = True) -> GroupedLineage:
    """The groups of a lineage; without `fold`, each artifact is a separate one."""
    back = set(graph.back)
    key_of = {address: _key(graph, node, back) if fold else address for address, node in graph.nodes.items()}
    members: dict[str, list[LineageNode]] = defaultdict(list)
    for address, key in key_of.items():
        members[key].append(graph.nodes[address])
    sources: dict[str, dict[str, None]] = defaultdict(dict)
    made: dict[str, dict[str, None]] = defaultdict(dict)
    for edge in graph.edges:
        source, product = key_of[edge.source], key_of[edge.made]
        sources[product][source] = None
        made[source][product] = None
    groups = {
        key: LineageGroup(key, tuple(sorted(nodes, key=lambda node: (node.shard or "", node.address))))
        for key, nodes in members.items()
    }
    return GroupedLineage(
        key_of[graph.root],
        groups,
        {key: list(others) for key, others in sources.items()},
        {key: list(others) for key, others in made.items()},
    )


def shards_in_words(shards: Sequence[str]) -> str:
    """`1,000 shards, shard-00000 to shard-00999`; gaps between the shards are pointed out."""
    count = counted(len(shards), "shards")
    if len(shards) < 3:
        return f"{count}, {', '.join(shards)}"
    numbers = [re.search(r"(\d+)$", shard) for shard in shards]
    found = [int(number.group()) for number in numbers if number is not None]
    if found == list(range(found[0], found[0] + len(shards))) if found else False:
        return f"{count}, {shards[0]} to {shards[-1]}"
    return f"{count} between {shards[0]} and {shards[-1]}, not all of them"


def _key(graph: LineageGraph, node: LineageNode, back: set[str]) -> str:
    # Artifacts with a problem are shown separately, and so is the root.
    if node.family is None or node.problem or node.address == graph.root:
        return node.address
    return f"{'back' if node.address in back else 'forward'} {node.family}"
