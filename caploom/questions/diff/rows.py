"""Compares single captions of two artifacts: equal, changed, or only in one; joined by image identity."""

from dataclasses import dataclass
from pathlib import Path

import duckdb

from caploom.storage.store import Artifact, Store
from caploom.training_set.write import training_files

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


_CAPTIONS_OF = {
    "raw_pairs": "select image_id, 'raw' as source, raw_caption as said from read_parquet(?)",
    # For one captioner alone, so that two captioners can be compared image by image.
    "captions": "select image_id, '' as source, text as said from read_parquet(?)",
    "sheared": "select image_id, '' as source, caption as said from read_parquet(?)",
    "sheared_captions": "select image_id, captioner as source, caption as said from read_parquet(?)",
    "training_set": (
        "select image_id, unnest(sources) as source, unnest(captions) as said"
        " from (select image_id, sources, captions from read_parquet(?))"
    ),
}
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
    kind, files, others = first.manifest.kind, _files(store, first), _files(store, second)
    if files is None or others is None:
        return None
    query_of = _CAPTIONS_OF[kind]
    nothing = "select ''::text as image_id, ''::text as source, ''::text as said where false"
    with duckdb.connect() as connection:
        query = _COMPARED.format(first=query_of if files else nothing, second=query_of if others else nothing)
        connection.execute(query, [[str(each) for each in side] for side in (files, others) if side])
        counts = connection.execute(_COUNTED).fetchone()
        examples = connection.execute(
            "select image_id, source, first, second from compared where first <> second order by 1, 2 limit ?",
            [_EXAMPLES],
        ).fetchall()
    equal, changed, only_first, only_second = counts or (0, 0, 0, 0)
    return RowDifferences(equal, changed, only_first, only_second, examples)


def _files(store: Store, artifact: Artifact) -> list[Path] | None:
    kind = artifact.manifest.kind
    if kind == "training_set":
        return training_files(artifact)
    if kind == "sheared_captions":
        parts = [store.read(record.address) for record in artifact.manifest.inputs]
        return [part.file("sheared.parquet") for part in parts if part is not None]
    names = {"raw_pairs": "pairs.parquet", "captions": "captions.parquet", "sheared": "sheared.parquet"}
    return [artifact.file(names[kind])] if kind in names else None
