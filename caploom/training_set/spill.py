"""A file that takes rows in any order and gives them back by bucket: what does not fit into memory waits here."""

import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa


class Spill:
    """Rows of one schema, to be written batch by batch and read bucket by bucket.

    `bucket_of` says which of `buckets` each row of a batch belongs to. About `flush_bytes` are held back, so that what
    is written for a bucket at once is no crumb. The file has no name and is gone with the process, however that ends.
    """

    def __init__(
        self,
        folder: Path,
        schema: pa.Schema,
        buckets: int,
        flush_bytes: int,
        bucket_of: Callable[[pa.RecordBatch], np.ndarray],
    ) -> None:
        self.schema, self.buckets = schema, buckets
        self._flush_bytes, self._bucket_of = flush_bytes, bucket_of
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - closed by `close`
        self._places: list[list[tuple[int, int]]] = [[] for _ in range(buckets)]
        self._pending: list[pa.RecordBatch] = []
        self._pending_bytes = self._end = 0

    def add(self, batch: pa.RecordBatch) -> None:
        """Take rows."""
        self._pending.append(batch)
        self._pending_bytes += batch.get_total_buffer_size()
        if self._pending_bytes >= self._flush_bytes:
            self.flush()

    def flush(self) -> None:
        """Write what is held back; before anything is read."""
        if not self._pending:
            return
        batch = _one_batch(self._pending, self.schema)
        self._pending, self._pending_bytes = [], 0
        bucket = self._bucket_of(batch)
        # Sixteen bits or fewer are sorted by counting.
        batch = batch.take(pa.array(np.argsort(bucket.astype(np.uint16), kind="stable")))
        ends = np.cumsum(np.bincount(bucket, minlength=self.buckets)).tolist()
        start = 0
        for number, end in enumerate(ends):
            if end > start:
                data = batch.slice(start, end - start).serialize()
                self._file.write(data)
                self._places[number].append((self._end, data.size))
                self._end += data.size
            start = end

    def read(self, bucket: int) -> pa.RecordBatch:
        """All rows of a bucket, in the order in which they came."""
        batches = []
        for start, size in self._places[bucket]:
            self._file.seek(start)
            batches.append(pa.ipc.read_record_batch(pa.py_buffer(self._file.read(size)), self.schema))
        return _one_batch(batches, self.schema)

    def close(self) -> None:
        """Give the disk back."""
        self._file.close()


def _one_batch(batches: list[pa.RecordBatch], schema: pa.Schema) -> pa.RecordBatch:
    table = pa.Table.from_batches(batches, schema).combine_chunks()
    return table.to_batches()[0] if len(table) else pa.RecordBatch.from_pylist([], schema)
