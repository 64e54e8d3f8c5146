"""A file that takes rows in any order and returns them by bucket, for rows that do not fit into memory."""

import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import IO

import numpy as np
import pyarrow as pa

from caploom.errors import StoreError
from caploom.storage.writing import full_disk_explained


class Spill:
    """Rows of one schema, to be written batch by batch and read bucket by bucket.

    `bucket_of` says which of `buckets` each row of a batch belongs to. About `flush_bytes` are buffered, so that the
    piece written for a bucket is not too small.

    Attributes:
        offsets: for each flush, int64 of shape (buckets + 1,): where each bucket's piece begins and ends in the file.
    """

    def __init__(
        self,
        file: IO[bytes],
        schema: pa.Schema,
        buckets: int,
        flush_bytes: int,
        bucket_of: Callable[[pa.RecordBatch], np.ndarray],
    ) -> None:
        self.schema, self.buckets = schema, buckets
        self.offsets: list[np.ndarray] = []
        self._file, self._flush_bytes, self._bucket_of = file, flush_bytes, bucket_of
        self._pending: list[pa.RecordBatch] = []
        self._pending_bytes = self._end = 0

    def add(self, batch: pa.RecordBatch) -> None:
        """Take rows."""
        self._pending.append(batch)
        self._pending_bytes += batch.get_total_buffer_size()
        if self._pending_bytes >= self._flush_bytes:
            self.flush()

    def flush(self) -> None:
        """Write the buffered rows; call it before anything is read."""
        if not self._pending:
            return
        batch = _one_batch(self._pending, self.schema)
        self._pending, self._pending_bytes = [], 0
        bucket = self._bucket_of(batch)
        # Sixteen bits or fewer are sorted by counting.
        batch = batch.take(pa.array(np.argsort(bucket.astype(np.uint16), kind="stable")))
        ends = np.cumsum(np.bincount(bucket, minlength=self.buckets)).tolist()
        offsets = np.full(self.buckets + 1, self._end, np.int64)
        start = 0
        for number, end in enumerate(ends):
            if end > start:
                data = batch.slice(start, end - start).serialize()
                self._file.write(data)
                self._end += data.size
            offsets[number + 1] = self._end
            start = end
        self._file.flush()
        self.offsets.append(offsets)

    def read(self, bucket: int) -> pa.RecordBatch:
        """All rows of a bucket, in the order in which they came."""
        return rows_of_pieces((self._piece(start, size) for start, size in ranges(self.offsets, bucket)), self.schema)

    def close(self) -> None:
        """Release the disk space."""
        with suppress(OSError):  # a full disk was reported before
            self._file.close()

    def _piece(self, start: int, size: int) -> bytes:
        self._file.seek(start)
        return self._file.read(size)


def ranges(offsets: Sequence[np.ndarray], bucket: int) -> Iterator[tuple[int, int]]:
    """The positions of a bucket's pieces in a spill's file: start and size."""
    for offset in offsets:
        start, end = int(offset[bucket]), int(offset[bucket + 1])
        if end > start:
            yield start, end - start


def rows_of_pieces(pieces: Iterable[bytes], schema: pa.Schema) -> pa.RecordBatch:
    """The rows in a bucket's pieces."""
    return _one_batch([pa.ipc.read_record_batch(pa.py_buffer(piece), schema) for piece in pieces], schema)


def nameless_file(folder: Path) -> IO[bytes]:
    """A nameless file, which disappears with the process, however that ends."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return tempfile.TemporaryFile(dir=folder)
    except OSError as error:
        why = (error.strerror or str(error)).lower()
        raise StoreError(
            f"{folder}: rows that wait for the merge cannot be written there ({why}); change `merge.spill`."
        ) from None


def full_spill_explained(folder: Path) -> AbstractContextManager[None]:
    """A disk that is full while rows are written becomes a `StoreError` that says so."""
    advice = "make room, or name a folder of a larger disk in `merge.spill`"
    return full_disk_explained(folder, "the rows that wait for the merge do not fit there", advice)


def _one_batch(batches: list[pa.RecordBatch], schema: pa.Schema) -> pa.RecordBatch:
    table = pa.Table.from_batches(batches, schema).combine_chunks()
    return table.to_batches()[0] if len(table) else pa.RecordBatch.from_pylist([], schema)
