"""The ledger: every caption ever made, unsheared, found by image identity and the captioner's fingerprint.

Finished shards' captions are in the `captions` artifacts; those of a shard in progress are in parts next to them, each
written completely or not at all. Together they are a captioner's ledger. Parts are deleted once their shard is done.
"""

import glob
import io
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Self

import pyarrow as pa
import pyarrow.parquet as pq

from caploom.common.locks import one_at_a_time
from caploom.storage.key_index import KeyIndex
from caploom.storage.records import CAPTIONS
from caploom.storage.store import Store
from caploom.storage.tables import damage_explained, table_of
from caploom.storage.writing import full_disk_explained

KIND = "captions"
_PENDING = "pending"
_TABLE = "captions.parquet"
_WRITE_INTERVAL = 0.25  # seconds: a tiny model's batches share a part, a large one's have a part each


class Ledger:
    """The captions of one captioner's fingerprint, whatever the captioner's name was when they were made.

    Keys are images; where the prompt quotes the raw caption, image and pair (`pair_ids`, parallel to `image_ids`).
    """

    def __init__(self, store: Store, captioner: str, fingerprint: str) -> None:
        self._captioner = captioner
        self._fingerprint = fingerprint
        self._store = store
        self._kind_folder = store.path(KIND)
        self._pending = store.path(f"{KIND}/{captioner}/{fingerprint}/{_PENDING}")

    def find(self, image_ids: Sequence[str], pair_ids: Sequence[str] | None = None) -> pa.Table:
        """The existing captions (schema CAPTIONS) of these images, one per image."""
        # Two runs may both have captioned an image: one of the rows is taken, unmixed.
        query = f"select distinct on (image_id) {', '.join(CAPTIONS.names)} from known semi join wanted using"
        # Nothing may be missed: another machine may meanwhile have finished a shard and deleted its parts.
        table = self._ask(query, CAPTIONS.names, image_ids, pair_ids, self._store.refresh)
        table = CAPTIONS.empty_table() if table is None else table.cast(CAPTIONS)
        return table.set_column(1, CAPTIONS.field("captioner"), pa.array([self._captioner] * len(table), pa.string()))

    def missing(self, image_ids: Sequence[str], pair_ids: Sequence[str] | None = None) -> list[str]:
        """The ones of these images that have no caption yet, in the given order."""
        query = "select image_id from wanted anti join known using"
        found = self._ask(query, ["image_id"], image_ids, pair_ids, self._store.refresh_throttled)
        if found is None:
            return list(image_ids)
        missing = set(found.column("image_id").to_pylist())
        return [image_id for image_id in image_ids if image_id in missing]

    def _ask(
        self,
        query: str,
        columns: Sequence[str],
        image_ids: Sequence[str],
        pair_ids: Sequence[str] | None,
        refresh: Callable[..., None],
    ) -> pa.Table | None:
        """The answer to a query that joins `known` captions and `wanted` keys; None when no caption is known at all."""
        import duckdb  # only where it is asked: planning imports this module

        wanted = pa.table({"image_id": list(image_ids)} | ({"pair_id": list(pair_ids)} if pair_ids else {}))
        keys = ", ".join(wanted.column_names)
        read = list(dict.fromkeys([*columns, *wanted.column_names]))
        # Parts first: another run deletes its parts once their artifact is finished, so a part that is gone when it is
        # read is in an artifact when those are listed; and artifacts stay.
        parts = self._parts(read)
        finished = self._finished(image_ids, refresh)
        if not finished and not len(parts):
            return None
        sources = ["select * from parts", *([f"select {', '.join(read)} from read_parquet(?)"] if finished else [])]
        with damage_explained(self._kind_folder), duckdb.connect() as connection:
            self._store.open_to(connection)
            connection.register("wanted", wanted)
            connection.register("parts", parts)
            known = f"with known as ({' union all '.join(sources)})"
            return connection.sql(f"{known} {query} ({keys})", params=[finished] if finished else []).to_arrow_table()

    def _parts(self, columns: list[str]) -> pa.Table:
        """The captions of shards in progress, of any run."""
        tables = [pa.schema([CAPTIONS.field(name) for name in columns]).empty_table()]
        for address in self._addresses():
            pattern = f"{address}/{_PENDING}/*/*.parquet"
            self._store.pull_shared(pattern)
            # The glob module skips folders that vanish meanwhile, where pathlib raises.
            for path in glob.iglob(f"{glob.escape(str(self._store.path('')))}/{pattern}"):  # noqa: PTH207
                with suppress(FileNotFoundError):
                    tables.append(pq.read_table(path, columns=columns, partitioning=None))
        return pa.concat_tables(tables)

    def _finished(self, image_ids: Sequence[str], refresh: Callable[..., None]) -> list[str]:
        """The tables of finished shards that may have captions of these images."""
        found: list[str] = []
        for address in self._addresses():
            refresh(*address.split("/"))
            index = KeyIndex(self._store, address, _TABLE, "image_id", skip=[_PENDING])
            found += (holder for holder in index.holders(image_ids) if self._store.has_file(holder, _TABLE))
        return [f"{self._store.tables_root}/{address}/{_TABLE}" for address in found]

    def _addresses(self) -> list[str]:
        """The folders of this fingerprint's shards, one per name that its captioner had."""
        return [f"{KIND}/{name}/{self._fingerprint}" for name in self._store.folders(KIND)]

    def append(self, shard: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Store some captions durably; raises `StoreError` when the disk is full."""
        if not rows:
            return
        data = io.BytesIO()
        pq.write_table(table_of(rows, CAPTIONS), data)
        folder = self.under_way(shard)
        with full_disk_explained(self._store.root):
            folder.mkdir(parents=True, exist_ok=True)
            self._store.put_shared(folder / f"{uuid.uuid4().hex}.parquet", data.getvalue())

    def under_way(self, shard: str) -> Path:
        """The folder of a shard's parts until it is finished."""
        return self._pending / shard

    def kept_of(self, shard: str) -> set[str]:
        """The images with captions in parts of this shard."""
        self._bring(shard, "*.parquet")
        kept: set[str] = set()
        for path in self.under_way(shard).glob("*.parquet"):
            kept.update(pq.read_table(path, columns=["image_id"], partitioning=None)["image_id"].to_pylist())
        return kept

    def mark(self, shard: str, name: str) -> int:
        """Leave a mark next to a shard's parts, deleted with them; returns how many of this name there were before."""
        self._bring(shard, f"{name}-*")
        folder = self.under_way(shard)
        before = sum(1 for _ in folder.glob(f"{name}-*"))
        folder.mkdir(parents=True, exist_ok=True)
        self._store.put_shared(folder / f"{name}-{uuid.uuid4().hex[:8]}", b"")
        return before

    def sweep(self, shard: str) -> None:
        """Delete the parts of a shard whose artifact is finished (it has the same rows)."""
        self._store.delete_shared(self.under_way(shard))

    def _bring(self, shard: str, pattern: str) -> None:
        below = self.under_way(shard).relative_to(self._store.root.resolve()).as_posix()
        self._store.pull_shared(f"{below}/{pattern}")

    @contextmanager
    def claimed(self, shard: str) -> Iterator[None]:
        """Let only one run at a time caption a shard: another one waits, and then finds the work done."""
        self._pending.mkdir(parents=True, exist_ok=True)
        busy = f"captions/{self._captioner} [{shard}]: another run is captioning this shard; waiting for it."
        with one_at_a_time(self._pending / f"{shard}.lock", busy):
            yield


class LedgerWriter:
    """Appends a shard's captions in the background, a part at most every quarter of a second.

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
        """Store these captions soon; raises the `StoreError` of an earlier write."""
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
