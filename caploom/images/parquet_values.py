"""Single values of a Parquet column, usually read in ascending order, without reading a row group for each."""

from collections import deque
from collections.abc import Iterator
from threading import Lock
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from caploom.storage.paths import open_uri

_ROWS = 32  # read at once
_KEPT = 4  # batches: concurrent readers are never further apart


class ColumnValues:
    """The values of one column, for several threads."""

    def __init__(self, uri: str, column: str) -> None:
        self.uri, self.column = uri, column
        self._lock = Lock()
        self._kept: deque[tuple[int, pa.Array]] = deque(maxlen=_KEPT)
        self._batches: Iterator[tuple[int, pa.Array]] | None = None

    def value(self, row: int) -> Any:
        """The value in a row, from 0; raises `IndexError` when there is no such row, and what pyarrow raises."""
        with self._lock:
            for start, batch in self._kept:
                if start <= row < start + len(batch):
                    return batch[row - start].as_py()
            if self._batches is None or (self._kept and row < self._kept[-1][0]):
                self._batches = self._read(row)
                self._kept.clear()
            for start, batch in self._batches:
                self._kept.append((start, batch))
                if row < start + len(batch):
                    return batch[row - start].as_py()
            self._batches = None
        raise IndexError(row)

    def _read(self, row: int) -> Iterator[tuple[int, pa.Array]]:
        """Batches of values, starting with a row's row group, each with the number of its first row."""
        with open_uri(self.uri) as opened, pq.ParquetFile(opened) as file:
            start, groups = 0, list(range(file.num_row_groups))
            while groups and start + file.metadata.row_group(groups[0]).num_rows <= row:
                start += file.metadata.row_group(groups.pop(0)).num_rows
            for batch in file.iter_batches(_ROWS, row_groups=groups, columns=[self.column], use_threads=False):
                yield start, batch.column(0)
                start += len(batch)
