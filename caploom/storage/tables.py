"""Reading and writing the store's Parquet tables with their declared schemas."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from caploom.errors import StoreError
from caploom.storage.manifest import RowCount
from caploom.storage.records import FAILURES


def table_of(rows: Iterable[Mapping[str, Any]], schema: pa.Schema) -> pa.Table:
    """A table of rows; raises for a null in a column that the schema does not allow to be null, which is a bug."""
    return pa.Table.from_pylist(list(rows), schema=schema)


def write_table(table: pa.Table, path: Path) -> None:
    """Write Parquet (zstd). The same rows give the same bytes."""
    pq.write_table(table, path, compression="zstd")


def read_table(path: Path, columns: list[str] | None = None) -> pa.Table:
    """Read Parquet; raises `StoreError` when the file is gone or damaged, or lacks a column."""
    try:
        # Not `pq.read_table`, which imports pandas: half a second of every question that reads a table.
        with pq.ParquetFile(path) as file:
            table = file.read(columns)
        return table if columns is None else table.select(columns)
    except (OSError, KeyError, pa.ArrowInvalid) as error:
        raise _unreadable(path, error) from None


def read_batches(path: Path, columns: list[str], rows: int = 16_384) -> Iterator[pa.RecordBatch]:
    """Read Parquet a few rows at a time, in bounded memory; raises `StoreError` when the file is gone or damaged."""
    try:
        with pq.ParquetFile(path) as file:
            yield from file.iter_batches(batch_size=rows, columns=columns, use_threads=False)
    except (OSError, pa.ArrowInvalid) as error:
        raise _unreadable(path, error) from None


def read_first(path: Path, rows: int) -> pa.Table:
    """The first rows of a Parquet file, without reading the others; raises `StoreError` as `read_table` does."""
    schema = read_metadata(path).schema.to_arrow_schema()
    first = next(read_batches(path, schema.names, rows), None)
    return schema.empty_table() if first is None else pa.Table.from_batches([first])


def read_metadata(path: Path) -> pq.FileMetaData:
    """The metadata of a Parquet file; raises `StoreError` when the file is gone or damaged."""
    try:
        return pq.read_metadata(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise _unreadable(path, error) from None


@contextmanager
def damage_explained(where: object) -> Iterator[None]:
    """DuckDB's error about a damaged table below `where` becomes a `StoreError` whose message names the file."""
    import duckdb  # only where it is asked: planning imports this module

    try:
        yield
    except (duckdb.Error, OSError) as error:
        raise StoreError(
            f"{where}: a table in it cannot be read ({error}); delete the table's folder and rebuild the artifact."
        ) from None


def _unreadable(path: Path, error: Exception) -> StoreError:
    return StoreError(f"{path}: it cannot be read ({error}); delete its folder and rebuild the artifact.")


def failure(stage: str, key: str, image: str, reason: str, detail: str, attempt: int = 1) -> dict[str, Any]:
    """A row of a failures table."""
    return {"stage": stage, "key": key, "image": image, "reason": reason, "detail": detail, "attempt": attempt}


def count_rows(unit: str, rows_in: int, rows_out: int, failures: Iterable[Mapping[str, Any]]) -> RowCount:
    """A stage's row counts, with failures counted by reason."""
    reasons: dict[str, int] = {}
    for row in failures:
        reasons[row["reason"]] = reasons.get(row["reason"], 0) + 1
    return RowCount(unit=unit, rows_in=rows_in, rows_out=rows_out, rows_failed=sum(reasons.values()), reasons=reasons)


def write_failures(failures: Iterable[Mapping[str, Any]], folder: Path) -> None:
    """Write the failures table of an artifact."""
    write_table(table_of(failures, FAILURES), folder / "failures.parquet")
