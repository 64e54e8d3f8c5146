"""What an artifact was made from, back to the raw files, and what was made from it: a graph from the catalog."""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from caploom.common.text import TIME_FORMAT
from caploom.questions.lineage.words import in_few_words
from caploom.stages.registry import sharded
from caploom.storage.store import Store

if TYPE_CHECKING:
    import duckdb

MADE, MISSING, DAMAGED = "made", "missing", "damaged"
"""The states of an artifact that a manifest names: made, gone, or with an unreadable manifest."""

_SET_ASIDE = '{"shard": null, "rows": null}'  # the fields in which shards of one family differ


@dataclass(frozen=True)
class LineageNode:
    """An artifact of a graph; a missing or damaged one only has what other manifests say about it.

    `family` is the same for artifacts that differ only in their `shard`; both are None where there are no shards.
    `problem` is a sentence about what is wrong, if anything.
    """

    address: str
    kind: str
    label: str
    fingerprint: str
    data_version: str
    state: str = MADE
    problem: str = ""
    started: str = ""
    seconds: float = 0.0
    rows_out: int | None = None
    rows_failed: int | None = None
    unit: str = ""
    configured: str = ""
    is_latest: bool = True
    family: str | None = None
    shard: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """The form that `--json` prints."""
        return asdict(self)


@dataclass(frozen=True)
class LineageEdge:
    """`made` was made from `source`, which had `data_version` at that time."""

    source: str
    made: str
    data_version: str


@dataclass(frozen=True)
class LineageGraph:
    """An artifact (`root`), all that it was made from and all that was made from it.

    `nodes` are by address. `back` and `forward` are the addresses on either side, without the root. `notes` are
    sentences about what the graph may lack.
    """

    root: str
    nodes: dict[str, LineageNode]
    edges: tuple[LineageEdge, ...]
    back: tuple[str, ...]
    forward: tuple[str, ...]
    notes: tuple[str, ...] = ()

    @property
    def missing(self) -> list[LineageNode]:
        """Artifacts that are gone, damaged, or changed since something was made from them."""
        return [node for node in self.nodes.values() if node.problem]

    def to_dict(self) -> dict[str, Any]:
        """The form that `--json` prints."""
        forward = set(self.forward)
        side = {
            address: "root" if address == self.root else "forward" if address in forward else "back"
            for address in self.nodes
        }
        return {
            "root": self.root,
            "nodes": [{**node.to_dict(), "side": side[address]} for address, node in self.nodes.items()],
            "edges": [asdict(edge) for edge in self.edges],
            "missing": [node.address for node in self.missing],
            "notes": list(self.notes),
        }


def artifact_lineage(store: Store, text: str) -> LineageGraph:
    """The lineage of the artifact that `text` names (see `find_artifact`); raises `StoreError` when there is none.

    Example:
        >>> graph = artifact_lineage(factory.store, "checkpoint [sheared]")
        >>> [node.label for node in graph.nodes.values() if node.kind == "training_set"]
        ['training_set [sheared]']
    """
    from caploom.catalog.catalog import open_catalog
    from caploom.stages.artifact_names import find_artifact

    root = find_artifact(store, text).manifest.address
    with open_catalog(store) as catalog:
        return lineage_of(catalog, root)


def lineage_of(catalog: "duckdb.DuckDBPyConnection", root: str) -> LineageGraph:
    """The lineage of the artifact at an address, from an open catalog."""
    back = _reached(catalog, root, "input_address", "address")
    forward = _reached(catalog, root, "address", "input_address")
    edges = _edges(catalog, [root, *back], [root, *forward])
    nodes = _nodes(catalog, [root, *back, *forward])
    damaged = catalog.execute("select path, problem from damaged order by path").fetchall()
    recorded = {edge.source: edge.data_version for edge in edges}
    for address in [root, *back, *forward]:
        if address not in nodes:
            nodes[address] = _missing(address, recorded.get(address, ""), damaged)
    for edge in edges:
        node = nodes[edge.source]
        if node.state == MADE and node.data_version != edge.data_version and not node.problem:
            problem = (
                f"it is no longer what {edge.made} was made from: its data version is {node.data_version}, "
                f"and was {edge.data_version}"
            )
            nodes[edge.source] = LineageNode(**{**asdict(node), "problem": problem})
    notes = []
    if damaged:
        paths = ", ".join(str(path) for path, _ in damaged[:3]) + (", ..." if len(damaged) > 3 else "")
        notes.append(
            f"{len(damaged)} manifest{'s' if len(damaged) > 1 else ''} of this store cannot be read, so what was made "
            f"from or by these artifacts may be missing here: {paths}."
        )
    ordered = {address: nodes[address] for address in [root, *back, *forward]}
    return LineageGraph(root, ordered, edges, tuple(back), tuple(forward), tuple(notes))


def _reached(catalog: "duckdb.DuckDBPyConnection", root: str, give: str, take: str) -> list[str]:
    """All addresses that are reachable from the root, without it."""
    query = f"""
        with recursive reached(address) as (
            select ?::text union select inputs.{give} from inputs join reached on inputs.{take} = reached.address
        )
        select address from reached order by address
    """
    return [address for (address,) in catalog.execute(query, [root]).fetchall() if address != root]


def _edges(catalog: "duckdb.DuckDBPyConnection", back: list[str], forward: list[str]) -> tuple[LineageEdge, ...]:
    """The edges on both sides of the root, in the manifests' order."""
    rows = catalog.execute(
        "select input_address, address, input_data_version from inputs"
        " where address in (select unnest(?::text[])) or input_address in (select unnest(?::text[]))"
        " order by address, position",
        [back, forward],
    ).fetchall()
    return tuple(LineageEdge(*row) for row in rows)


def _nodes(catalog: "duckdb.DuckDBPyConnection", addresses: list[str]) -> dict[str, LineageNode]:
    rows = catalog.execute(
        f"""
        select address, kind, label, fingerprint, data_version,
            strftime(make_timestamp((epoch(started) * 1000000)::bigint), '{TIME_FORMAT}'),
            seconds, rows_out, rows_failed, unit, is_latest, name, code_version,
            case when kind in (select unnest(?::text[]))
                then json_merge_patch(configuration, '{_SET_ASIDE}') else configuration end::text
        from manifests where address in (select unnest(?::text[]))
        """,
        [list(sharded()), addresses],
    ).fetchall()
    words: dict[tuple[str, str], str] = {}  # shards of one family share theirs
    return {row[0]: _node(row, words) for row in rows}


def _node(row: Any, words: dict[tuple[str, str], str]) -> LineageNode:
    address, kind, label, fingerprint, version, started, seconds, out, failed, unit, latest, name, code, text = row
    family = shard = None
    if kind in sharded() and name:
        shard, family = name[-1], "/".join([kind, *name[:-1], code, text])
    if (kind, text) not in words:
        words[kind, text] = in_few_words(kind, json.loads(text))
    return LineageNode(
        address=address,
        kind=kind,
        label=label,
        fingerprint=fingerprint,
        data_version=version,
        started=started or "",
        seconds=seconds or 0.0,
        rows_out=out,
        rows_failed=failed,
        unit=unit or "",
        configured=words[kind, text],
        is_latest=bool(latest),
        family=family,
        shard=shard,
    )


def _missing(address: str, data_version: str, damaged: Iterable[tuple[str, str]]) -> LineageNode:
    """An artifact without a readable manifest."""
    kind, *name, fingerprint = address.split("/")
    state, problem = MISSING, "its folder is gone from the store; only the artifacts made from it record it"
    for path, why in damaged:
        if address in str(path):
            state, problem = DAMAGED, f"its manifest cannot be read: {why}"
    label = "/".join([kind, *name])
    return LineageNode(address, kind, label, fingerprint, data_version, state=state, problem=problem)
