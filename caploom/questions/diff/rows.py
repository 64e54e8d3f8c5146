"""Compares single captions of two artifacts: equal, changed, or only in one; joined by image identity."""

from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from caploom.stages.registry import STAGES, load_stage
from caploom.storage.duckdb_connection import in_memory
from caploom.storage.store import Artifact, Store

_EXAMPLES = 3


@dataclass(frozen=True)
class RowDifferences:
    """Counts of captions by image and source (a captioner, or the raw captions), and some that differ.

    Attributes:
        equal, changed, only_first, only_second: images and sources.
        examples: (image_id, source, caption in the first, caption in the second) of some changed ones.
    """

    equal: int
    changed: int
    only_first: int
    only_second: int
    examples: list[tuple[str, str, str, str]]


_COMPARED = """
create temp table compared as
select image_id, source, a.said as first, b.said as second
from (select image_id, source, string_agg(said, ' // ' order by said) as said from ({first}) group by all) a
full join (select image_id, source, string_agg(said, ' // ' order by said) as said from ({second}) group by all) b
using (image_id, source)
"""
_COUNTED = """
select count(*) filter (first = second), count(*) filter (first <> second),
    count(*) filter (second is null), count(*) filter (first is null) from compared
"""


def row_differences(store: Store, first: Artifact, second: Artifact) -> RowDifferences | None:
    """The captions of two artifacts of one kind side by side; None for a kind without captions."""
    kind = first.manifest.kind
    query_of = load_stage(kind).texts if kind in STAGES else ""
    if not query_of:
        return None
    files, others = _files(store, first), _files(store, second)
    nothing = "select ''::text as image_id, ''::text as source, ''::text as said where false"
    with in_memory() as connection:
        query = _COMPARED.format(first=query_of if files else nothing, second=query_of if others else nothing)
        connection.execute(query, [[str(each) for each in side] for side in (files, others) if side])
        counts = connection.execute(_COUNTED).fetchone()
        examples = connection.execute(
            "select image_id, source, first, second from compared where first <> second order by 1, 2 limit ?",
            [_EXAMPLES],
        ).fetchall()
    equal, changed, only_first, only_second = counts or (0, 0, 0, 0)
    return RowDifferences(equal, changed, only_first, only_second, examples)


def _files(store: Store, artifact: Artifact) -> list[Path]:
    """The tables that an artifact's texts are in: its own, or those of its inputs."""
    tables = load_stage(artifact.manifest.kind).tables
    if not tables:
        parts = [store.read(record.address) for record in artifact.manifest.inputs]
        return [file for part in parts if part is not None for file in _files(store, part)]
    names = sorted(name for name in artifact.manifest.files if fnmatch(name, next(iter(tables))))
    return [artifact.file(name) for name in names]
