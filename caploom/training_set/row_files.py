"""Writes a training set's tables into Parquet files whose cut depends on the rows alone, not on how they arrive."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from caploom.records import DROPPED, TRAINING_ROWS

FILE_ROWS = 20_000
FILE_BYTES = 64 * 2**20
"""A file ends with the row that reaches one of these; bytes are those of the captions."""

# Values that come again and again; captions and identities do not, and a dictionary of them is built for nothing.
_DICTIONARIES = ["sources.list.element", "weights.list.element", "source", "reason"]


class TableFiles:
    """Writes `<name>-00000.parquet`, ...; the same rows give the same bytes, in whatever pieces they come.

    `text_bytes` says how many bytes of text each row of a table has: (N,) int64.
    """

    def __init__(
        self,
        folder: Path,
        name: str,
        schema: pa.Schema,
        text_bytes: Callable[[pa.Table], np.ndarray],
        *,
        file_rows: int = FILE_ROWS,
        file_bytes: int = FILE_BYTES,
    ) -> None:
        self._folder, self._name, self._schema, self._text_bytes = folder, name, schema, text_bytes
        self._file_rows, self._file_bytes = file_rows, file_bytes
        self._pending: list[pa.Table] = []
        self._rows = self._bytes = self._files = 0

    def write(self, rows: pa.Table) -> None:
        """Take rows."""
        self._schema = rows.schema  # with its metadata
        size = np.cumsum(self._text_bytes(rows))
        start = taken = 0
        while start < len(rows):
            by_bytes = int(np.searchsorted(size, taken + self._file_bytes - self._bytes)) + 1
            end = min(start + self._file_rows - self._rows, by_bytes, len(rows))
            self._pending.append(rows.slice(start, end - start))
            self._rows += end - start
            self._bytes += int(size[end - 1]) - taken
            start, taken = end, int(size[end - 1])
            if self._rows >= self._file_rows or self._bytes >= self._file_bytes:
                self._end_file()

    def close(self, *, at_least_one: bool = False) -> None:
        """Write what is left; `at_least_one` file, if need be without rows."""
        if self._rows or (at_least_one and not self._files):
            self._end_file()

    def _end_file(self) -> None:
        table = pa.concat_tables([self._schema.empty_table(), *self._pending]).combine_chunks()
        self._pending, self._rows, self._bytes = [], 0, 0
        options: dict[str, Any] = {"compression": "zstd", "use_dictionary": _DICTIONARIES}
        pq.write_table(table, self._folder / f"{self._name}-{self._files:05d}.parquet", **options)
        self._files += 1


def row_files(folder: Path) -> TableFiles:
    """Where a training set's rows go: `rows-*.parquet`."""
    return TableFiles(folder, "rows", TRAINING_ROWS, caption_bytes)


def dropped_files(folder: Path) -> TableFiles:
    """Where go the captions that filters dropped: `dropped-*.parquet`."""
    return TableFiles(folder, "dropped", DROPPED, lambda rows: pc.binary_length(rows.column("caption")).to_numpy())


def caption_bytes(rows: pa.Table) -> np.ndarray:
    """Bytes of each row's captions: (N,) int64."""
    sizes = []
    for captions in rows.column("captions").chunks:
        texts = captions.flatten()
        lengths = np.diff(np.frombuffer(texts.buffers()[1], np.int32)[texts.offset : texts.offset + len(texts) + 1])
        ends = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
        offsets = captions.offsets.to_numpy() - captions.offsets[0].as_py()
        sizes.append(np.diff(ends[offsets]))
    return np.concatenate(sizes) if sizes else np.empty(0, np.int64)
