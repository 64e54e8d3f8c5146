"""Sorts rows by a number, and by their text only for equal numbers, which are rare."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc


def sorted_rows(group: np.ndarray, rows: pa.RecordBatch, columns: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """The order of rows by (group, columns in UTF-8), and which of the rows in that order repeat the previous one."""
    order = np.argsort(group)  # need not be stable: ties are decided by text below
    ordered = group[order]
    repeated = np.zeros(len(order), bool)
    tied = np.flatnonzero(ordered[1:] == ordered[:-1]) + 1  # each has the group of the previous row
    if len(tied) == 0:
        return order, repeated
    positions = np.union1d(tied - 1, tied)
    texts = rows.select(columns).take(pa.array(order[positions]))
    table = pa.Table.from_batches([texts]).append_column("group", pa.array(ordered[positions]))
    inner = pc.sort_indices(table, sort_keys=[("group", "ascending"), *((name, "ascending") for name in columns)])
    order[positions] = order[positions][inner.to_numpy()]
    table = table.take(inner)
    same = np.ones(len(positions) - 1, bool)
    for name in ["group", *columns]:
        column = table.column(name).combine_chunks()
        same &= pc.equal(column.slice(1), column.slice(0, len(column) - 1)).to_numpy(zero_copy_only=False)
    repeated[positions[1:][same]] = True
    return order, repeated
