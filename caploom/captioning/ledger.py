"""The ledger: every caption ever made, unsheared, found again by image identity and captioner's fingerprint.

Finished shards' captions lie in the `captions` artifacts; those of a shard under way lie in parts beside them, each
written whole or not at all. Together they are the ledger of a captioner. Parts are swept once their shard is done.
"""

import glob
import io
import logging
import shutil
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
from filelock import FileLock, Timeout

from caploom.records import CAPTIONS
from caploom.store import MANIFEST, Store, full_disk_explained, write_atomically
from caploom.tables import table_of

KIND = "captions"
_PENDING = "pending"
_LISTINGS = 20  # another run may sweep its parts between our listing and our reading, which is then done again
_WRITE_INTERVAL = 0.25  # seconds: a tiny model's batches share a part, a large one's have a part each


class Ledger:
    """The captions of one captioner's fingerprint, whatever the captioner was called when they were made.

    Keys are images; where the prompt quotes the raw caption, image and pair (`pair_ids`, beside `image_ids`).
    """

    def __init__(self, store: Store, captioner: str, fingerprint: str) -> None:
        self._captioner = captioner
        self._fingerprint = fingerprint
        self._root = store.root
        self._kind_folder = store.path(KIND)
        self._pending = store.path(f"{KIND}/{captioner}/{fingerprint}/{_PENDING}")

    def find(self, image_ids: Sequence[str], pair_ids: Sequence[str] | None = None) -> pa.Table:
        """The captions (schema CAPTIONS) that these images have already, one an image."""
        # Two runs may both have captioned an image: one of the rows is taken, whole.
        query = f"select distinct on (image_id) {', '.join(CAPTIONS.names)} from known semi join wanted using"
        table = self._ask(query, CAPTIONS.names, image_ids, pair_ids)
        table = CAPTIONS.empty_table() if table is None else table.cast(CAPTIONS)
        return table.set_column(1, CAPTIONS.field("captioner"), pa.array([self._captioner] * len(table), pa.string()))

    def missing(self, image_ids: Sequence[str], pair_ids: Sequence[str] | None = None) -> list[str]:
        """Of these images, those that have no caption yet, in the given order."""
        found = self._ask("select image_id from wanted anti join known using", ["image_id"], image_ids, pair_ids)
        if found is None:
            return list(image_ids)
        missing = set(found.column("image_id").to_pylist())
        return [image_id for image_id in image_ids if image_id in missing]

    def _ask(
        self, query: str, columns: Sequence[str], image_ids: Sequence[str], pair_ids: Sequence[str] | None
    ) -> pa.Table | None:
        """The answer to a query that joins `known` captions and `wanted` keys; None when nothing is known at all."""
        wanted = pa.table({"image_id": list(image_ids)} | ({"pair_id": list(pair_ids)} if pair_ids else {}))
        keys = ", ".join(wanted.column_names)
        read = ", ".join(dict.fromkeys([*columns, *wanted.column_names]))
        for attempt in range(_LISTINGS):
            files = self._files()
            if not files:
                return None
            try:
                with duckdb.connect() as connection:
                    connection.register("wanted", wanted)
                    known = f"with known as (select {read} from read_parquet(?))"
                    return connection.sql(f"{known} {query} ({keys})", params=[files]).to_arrow_table()
            except duckdb.IOException:
                if attempt == _LISTINGS - 1 or all(Path(file).is_file() for file in files):
                    raise
        raise AssertionError("unreachable")

    def _files(self) -> list[str]:
        # A hidden folder is an artifact that a process is writing, or was killed while writing: it counts for nothing
        # (and `*` does not match it). Parts first: one that is swept between the two listings is in the artifact that
        # the second then sees. The glob module passes over folders that vanish under it; pathlib raises.
        kind = glob.escape(str(self._kind_folder))
        parts = glob.glob(f"{kind}/*/{self._fingerprint}/{_PENDING}/*/*.parquet")  # noqa: PTH207
        finished = glob.glob(f"{kind}/*/{self._fingerprint}/*/*/captions.parquet")  # noqa: PTH207
        return parts + [path for path in finished if Path(path).with_name(MANIFEST).is_file()]

    def append(self, shard: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Keep some captions, whatever happens next; raises `StoreError` when the disk is full."""
        if not rows:
            return
        part = io.BytesIO()
        pq.write_table(table_of(rows, CAPTIONS), part)
        folder = self._pending / shard
        with full_disk_explained(self._root):
            folder.mkdir(parents=True, exist_ok=True)
            write_atomically(folder / f"{uuid.uuid4().hex}.parquet", part.getvalue())

    def sweep(self, shard: str) -> None:
        """Delete the parts of a shard whose artifact is finished (it holds the same rows)."""
        shutil.rmtree(self._pending / shard, ignore_errors=True)

    @contextmanager
    def claimed(self, shard: str) -> Iterator[None]:
        """Only one run at a time captions a shard: another one waits, and then finds its work done."""
        self._pending.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self._pending / f"{shard}.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            logging.getLogger(__name__).warning(
                "captions/%s [%s]: another run is captioning this shard; waiting for it.", self._captioner, shard
            )
            lock.acquire()
        try:
            yield
        finally:
            lock.release()


class LedgerWriter:
    """Appends a shard's captions beside the generation, a part at most every quarter of a second.

    A killed process loses no more than that. A failed write is raised by the next `append`, or when the block ends.
    """

    def __init__(self, ledger: Ledger, shard: str) -> None:
        self._ledger = ledger
        self._shard = shard
        self._waiting: list[Mapping[str, Any]] = []
        self._writing: Future[None] | None = None
        self._written = 0.0
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="ledger")

    def __enter__(self) -> Self:
        return self

    def append(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Have these captions kept soon; raises the `StoreError` of an earlier write."""
        self._waiting += rows
        if self._writing is not None:
            if not self._writing.done():
                return
            self._writing.result()
        if time.monotonic() - self._written >= _WRITE_INTERVAL:
            rows, self._waiting = self._waiting, []
            self._written = time.monotonic()
            self._writing = self._pool.submit(self._ledger.append, self._shard, rows)

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(wait=True)
        if self._writing is not None:
            self._writing.result()
        self._ledger.append(self._shard, self._waiting)
