"""Compares two checkpoints query by query: the paired bootstrap of their recalls' difference.

Two recalls of the same queries rise and fall together, so their own intervals may overlap where their difference is
certain. Queries are paired by identity (direction, query, fold), never by their position in a file.
"""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from caploom.errors import EvaluationError
from caploom.evaluation.intervals import PairedDifference, paired_difference
from caploom.evaluation.metrics import DIRECTIONS, RECALL_AT, recall_at
from caploom.storage.records import RANKS
from caploom.storage.tables import read_table

_KEY = ("query", "fold", "copy")


@dataclass(frozen=True)
class Comparison:
    """One recall of both sides; recalls are 0 to 1, over all queries of all folds.

    Attributes:
        scoring: how pairs were scored on both sides.
        direction: `image_to_text` or `text_to_image`.
        k: the K of Recall@K.
        queries: number of queries that both sides have.
        first: the first side's Recall@K.
        second: the second's.
        paired: the first minus the second, with its interval and p-value.
    """

    scoring: str
    direction: str
    k: int
    queries: int
    first: float
    second: float
    paired: PairedDifference

    def to_dict(self) -> dict[str, Any]:
        """The form that `caploom compare --json` prints."""
        told = asdict(self)
        paired = told.pop("paired")
        return {**told, **paired, "interval": list(paired["interval"])}


def paired_comparison(first: Path, second: Path, *, seed: int = 0) -> list[Comparison]:
    """Every recall of two files of ranks (schema RANKS), for each common scoring, in the first's order.

    Raises:
        EvaluationError: if the two have different queries, or no scoring in common.
        StoreError: if a file is gone or damaged.

    Example:
        >>> compared = paired_comparison(Path("sheared.parquet"), Path("raw-only.parquet"))[0]
        >>> compared.direction, compared.k, compared.first, compared.second, compared.paired.difference
        ('image_to_text', 1, 1.0, 0.5, 0.5)
    """
    one, other = _read(first), _read(second)
    scorings = [each for each in _different(one["scoring"]) if each in _different(other["scoring"])]
    if not scorings:
        raise EvaluationError(
            f"The pairs were scored as {', '.join(_different(one['scoring']))} in {first} and as "
            f"{', '.join(_different(other['scoring']))} in {second}: compare checkpoints of the same kind of model."
        )
    found = []
    for scoring in scorings:
        for direction in DIRECTIONS:
            keys, ranks = _queries(one, scoring, direction)
            other_keys, other_ranks = _queries(other, scoring, direction)
            if not keys.equals(other_keys):
                raise EvaluationError(_differing(keys, other_keys, direction, first, second))
            for k in RECALL_AT:
                paired = paired_difference(ranks <= k, other_ranks <= k, seed=seed)
                recalls = recall_at(ranks, k), recall_at(other_ranks, k)
                found.append(Comparison(scoring, direction, k, len(ranks), *recalls, paired))
    return found


def _read(path: Path) -> pa.Table:
    table = read_table(path)
    missing = [name for name in RANKS.names if name not in table.column_names]
    if missing:
        raise EvaluationError(
            f'{path}: this table of ranks has no column "{missing[0]}"; it is older than this version or not such a '
            "table: measure the recipe again (materialize retrieval_metrics)."
        )
    return table


def _queries(table: pa.Table, scoring: str, direction: str) -> tuple[pa.Table, np.ndarray]:
    """The queries, sorted, and the ranks in that order."""
    chosen = np.array(table["scoring"].to_numpy() == scoring) & np.array(table["direction"].to_numpy() == direction)
    part = table.filter(pa.array(chosen)).select(["query", "fold", "rank"])
    part = part.append_column("copy", pa.array(_copies(part["query"].to_pylist()), pa.int32()))
    part = part.sort_by([(name, "ascending") for name in _KEY])
    return part.select(list(_KEY)).combine_chunks(), part["rank"].to_numpy()


def _copies(queries: Iterable[str]) -> list[int]:
    """0 for a query's first occurrence, 1 for its second: a set may have the same picture twice."""
    met: dict[str, int] = {}
    numbers = []
    for query in queries:
        numbers.append(met.get(query, 0))
        met[query] = numbers[-1] + 1
    return numbers


def _differing(keys: pa.Table, others: pa.Table, direction: str, first: Path, second: Path) -> str:
    mine, theirs = (set(zip(*(each[name].to_pylist() for name in _KEY), strict=True)) for each in (keys, others))
    return (
        f"The queries differ ({direction}): {len(mine - theirs):,} of {len(mine):,} are only in {first}, "
        f"{len(theirs - mine):,} of {len(theirs):,} only in {second}; compare ranks of the same evaluation set."
    )


def _different(column: pa.ChunkedArray) -> list[str]:
    values: list[str] = column.unique().to_pylist()
    return values
