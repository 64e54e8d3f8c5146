"""Writes a training set's tables into Parquet files whose boundaries depend on the rows alone."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from caploom.storage.records import DROPPED, TRAINING_ROWS

FILE_ROWS = 20_000
FILE_BYTES = 64 * 2**20
"""A file ends with the row that reaches one of these; bytes are those of the captions."""

# Columns of recurring values; captions and identities do not recur, so a dictionary of them would be wasted.
_DICTIONARIES = ["sources.list.element", "weights.list.element", "source", "reason"]


class Cuts:
    """Decides where files end, from the rows as they come."""

    def __init__(self, file_rows: int = FILE_ROWS, file_bytes: int = FILE_BYTES) -> None:
        self._file_rows, self._file_bytes = file_rows, file_bytes
        self._rows = self._bytes = 0

    def add(self, sizes: np.ndarray) -> Iterator[tuple[int, int, bool]]:
        """Pieces of the next rows, whose bytes are `sizes` (N,) int64: start, end, and whether a file ends with it."""
        size = np.cumsum(sizes)
        start = taken = 0
        while start < len(size):
            by_bytes = int(np.searchsorted(size, taken + self._file_bytes - self._bytes)) + 1
            end = min(start + self._file_rows - self._rows, by_bytes, len(size))
            self._rows += end - start
            self._bytes += int(size[end - 1]) - taken
            ends = self._rows >= self._file_rows or self._bytes >= self._file_bytes
            if ends:
                self._rows = self._bytes = 0
            yield start, end, ends
            start, taken = end, int(size[end - 1])


class TableFiles:
    """Writes `<name>-00000.parquet`, ...; the same rows give the same bytes, in any pieces.

    `text_bytes` returns the bytes of text of each row of a table: (N,) int64.
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
        self._cuts = Cuts(file_rows, file_bytes)
        self._pending: list[pa.Table] = []
        self._files = 0

    def write(self, rows: pa.Table) -> None:
        """Take rows."""
        self._schema = rows.schema  # with its metadata
        for start, end, ends in self._cuts.add(self._text_bytes(rows)):
            self._pending.append(rows.slice(start, end - start))
            if ends:
                self._end_file()

    def close(self, *, at_least_one: bool = False) -> None:
        """Write the remaining rows; `at_least_one` file, if necessary without rows."""
        if self._pending or (at_least_one and not self._files):
            self._end_file()

    def _end_file(self) -> None:
        write_file(self._pending, self._schema, self._folder / file_name(self._name, self._files))
        self._pending = []
        self._files += 1


def file_name(name: str, number: int) -> str:
    """A file's name."""
    return f"{name}-{number:05d}.parquet"


def write_file(pieces: Sequence[pa.Table], schema: pa.Schema, path: Path) -> None:
    """Write one file from rows in pieces."""
    table = pa.concat_tables([schema.empty_table(), *pieces]).combine_chunks()
    options: dict[str, Any] = {"compression": "zstd", "use_dictionary": _DICTIONARIES}
    pq.write_table(table, path, **options)


def row_files(folder: Path) -> TableFiles:
    """The files of a training set's rows: `rows-*.parquet`."""
    return TableFiles(folder, "rows", TRAINING_ROWS, caption_bytes)


def dropped_files(folder: Path) -> TableFiles:
    """The files of captions that filters dropped: `dropped-*.parquet`."""
    return TableFiles(folder, "dropped", DROPPED, dropped_bytes)


def dropped_bytes(rows: pa.Table) -> np.ndarray:
    """Bytes of each dropped caption: (N,) int64."""
    return np.asarray(pc.binary_length(rows.column("caption")).to_numpy(), np.int64)


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
