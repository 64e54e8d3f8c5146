"""Which finished artifacts may hold a key, an image's or a pair's, without opening all of them.

A shard asks for a few thousand keys whether any of thousands of other shards has them. The answer is kept in a SQLite
file next to the artifacts: a 63-bit hash of each of their keys. It is derived from them alone, grows when it is
queried, and may be deleted at any time.
"""

import os
import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path

import pyarrow as pa

from caploom.common.locks import one_at_a_time
from caploom.errors import StoreError
from caploom.storage.manifest import MANIFEST
from caploom.storage.store import Store
from caploom.storage.tables import damage_explained

INDEX_FILE = ".keys.sqlite"

_VERSION = 1
_FILES_AT_ONCE = 256
_KEYS_AT_ONCE = 4_000_000
_ROWS_AT_ONCE = 100_000
_JUST_NOW = 2 * 10**9  # nanoseconds: a folder that changed this recently may change again with the same time stamp
_WAIT = 60.0  # seconds for a process that is writing

_SCHEMA = [
    "create table folders (name text primary key, changed integer not null) without rowid",
    "create table artifacts (number integer primary key, address text not null unique, finished integer not null)",
    "create table keys (hash integer not null, artifact integer not null, primary key (hash, artifact)) without rowid",
    f"pragma user_version = {_VERSION}",
]


_HASHES = pa.schema([("hash", pa.int64()), ("artifact", pa.int64())])


class KeyIndex:
    """The keys of the artifacts `<below>/<shard>/<fingerprint>`, in a column of one of their files.

    below: address of the folder of all shards. skip: names in it that are not shards. unindexed: that many artifacts
    are returned for every query instead of being indexed, because reading their tables takes less than a second.
    """

    def __init__(
        self, store: Store, below: str, file: str, column: str, *, skip: Sequence[str] = (), unindexed: int = 256
    ) -> None:
        self._store = store
        self._below = below
        self._folder = store.path(below)
        self._file, self._column = file, column
        self._skip = frozenset(skip)
        self._unindexed = unindexed

    def holders(self, keys: Sequence[str]) -> list[str]:
        """Addresses of the finished artifacts that may hold one of these keys: all that do, and a few that don't.

        Deleted artifacts may be among them. Raises `StoreError` when the index cannot be written.
        """
        changes = self._changes()
        if not keys or not changes:
            return []
        found, new = self._search(keys, changes)
        # A process that may only read the store searches as if there were no index.
        if len(new) > self._unindexed and os.access(self._folder, os.W_OK):
            busy = f"{self._below}: another process is indexing its artifacts; waiting for it."
            with one_at_a_time(self._folder / f"{INDEX_FILE}.lock", busy):
                self._learn(changes)
            found, new = self._search(keys, changes)
        return [*dict.fromkeys([*found, *new])]

    def _search(self, keys: Sequence[str], changes: Mapping[str, int]) -> tuple[list[str], list[str]]:
        """The indexed addresses with one of these keys, and all addresses that are not indexed."""
        with self._opened() as index:
            if index is None:
                return [], [*self._finished(changes)]
            index.execute("create temp table wanted (hash integer primary key)")
            index.executemany("insert into wanted values (?)", ([value] for value in _hashes(keys)))
            index.execute("begin")  # artifacts indexed meanwhile are in both answers or in neither
            # A cross join makes SQLite use this order; its own choice would read all keys.
            query = (
                "select distinct address from wanted cross join keys using (hash) join artifacts on number = artifact"
            )
            found = [address for (address,) in index.execute(query)]
            return found, [*self._unknown(index, changes)]

    def _learn(self, changes: Mapping[str, int]) -> None:
        """Index the keys of all artifacts that are not indexed yet; a killed process loses part of that work."""
        with self._opened(make=True) as index:
            assert index is not None
            unknown = [*self._unknown(index, changes).items()]
            while unknown:
                index.execute("begin immediate")
                keys = _HASHES.empty_table()
                # Many at once: even a few touch pages all over the file.
                while unknown and len(keys) < _KEYS_AT_ONCE:
                    some, unknown = dict(unknown[:_FILES_AT_ONCE]), unknown[_FILES_AT_ONCE:]
                    index.executemany(
                        "insert or replace into artifacts (address, finished) values (?, ?)", some.items()
                    )
                    keys = pa.concat_tables([keys, self._keys(index, some)])
                for batch in keys.sort_by("hash").to_batches(_ROWS_AT_ONCE):
                    rows = zip(*(column.to_pylist() for column in batch.columns), strict=True)
                    index.executemany("insert or ignore into keys values (?, ?)", rows)
                index.execute("commit")
            lately = time.time_ns() - _JUST_NOW
            settled = [(name, when) for name, when in changes.items() if when < lately]
            index.execute("begin immediate")
            index.executemany("insert or replace into folders values (?, ?)", settled)
            index.execute("commit")

    def _keys(self, index: sqlite3.Connection, addresses: Iterable[str]) -> pa.Table:
        """Rows of `keys`: the hashes of some artifacts' keys."""
        import duckdb  # only where it is asked: planning imports this module

        known = index.execute("select number, address from artifacts")
        numbers = {self._path_of(address): number for number, address in known}
        files = [self._path_of(each) for each in addresses if self._store.has_file(each, self._file)]
        if not files:
            return _HASHES.empty_table()
        of_file = pa.table({"filename": files, "artifact": [numbers[file] for file in files]})
        with damage_explained(self._folder), duckdb.connect() as connection:
            self._store.open_to(connection)
            connection.register("of_file", of_file)
            query = (
                f"select {_hash(self._column)} as hash, artifact from read_parquet(?, filename = true)"
                " join of_file using (filename)"
            )
            return connection.sql(query, params=[files]).to_arrow_table().cast(_HASHES.empty_table().schema)

    def _path_of(self, address: str) -> str:
        return f"{self._store.tables_root}/{address}/{self._file}"

    def _changes(self) -> dict[str, int]:
        """When each shard's folder was last changed, in nanoseconds."""
        try:
            with os.scandir(self._folder) as entries:
                return {
                    entry.name: entry.stat().st_mtime_ns
                    for entry in entries
                    if not entry.name.startswith(".") and entry.name not in self._skip and entry.is_dir()
                }
        except FileNotFoundError:
            return {}

    def _unknown(self, index: sqlite3.Connection, changes: Mapping[str, int]) -> dict[str, int]:
        """The finished artifacts that are not indexed; only folders that changed since are read."""
        seen = dict(index.execute("select name, changed from folders"))
        finished = self._finished(name for name, when in changes.items() if seen.get(name) != when)
        known = dict(index.execute("select address, finished from artifacts")) if finished else {}
        return {address: when for address, when in finished.items() if known.get(address) != when}

    def _finished(self, shards: Iterable[str]) -> dict[str, int]:
        """The finished artifacts of some shards, and when each was finished (nanoseconds)."""
        found = {}
        for shard in shards:
            for manifest in (self._folder / shard).glob(f"*/{MANIFEST}"):
                if not manifest.parent.name.startswith("."):
                    with suppress(FileNotFoundError):
                        address = f"{self._below}/{shard}/{manifest.parent.name}"
                        found[address] = manifest.stat().st_mtime_ns
        return found

    @contextmanager
    def _opened(self, *, make: bool = False) -> Iterator[sqlite3.Connection | None]:
        """The index; None when it is missing, of another version or damaged, unless it is created."""
        path = self._folder / INDEX_FILE
        with ExitStack() as stack:
            try:
                connection = _connected(path)
                if connection is None and make:
                    path.unlink(missing_ok=True)
                    connection = _connected(path, new=True)
                if connection is not None:
                    stack.enter_context(closing(connection))
                yield connection
            except sqlite3.Error as error:
                raise StoreError(
                    f"{path}: the index of keys cannot be read or written ({error}); make room, or delete the file: "
                    "it is rebuilt."
                ) from None


def _connected(path: Path, *, new: bool = False) -> sqlite3.Connection | None:
    if not new and not path.exists():
        return None
    connection = sqlite3.connect(path, timeout=_WAIT, isolation_level=None)
    try:
        if new:
            for statement in _SCHEMA:
                connection.execute(statement)
        (version,) = connection.execute("pragma user_version").fetchone()
    except sqlite3.OperationalError:
        connection.close()
        raise
    except sqlite3.DatabaseError:  # not a database
        version = None
    if version == _VERSION:
        return connection
    connection.close()
    return None


def _hash(column: str) -> str:
    """DuckDB's expression for 63 bits of a text's MD5, which is the same in every version."""
    return f"(md5_number_lower({column}) >> 1)::bigint"


def _hashes(keys: Sequence[str]) -> list[int]:
    import duckdb  # only where it is asked: planning imports this module

    with duckdb.connect() as connection:
        connection.register("asked", pa.table({"key": list(keys)}))
        return [hashed for (hashed,) in connection.execute(f"select distinct {_hash('key')} from asked").fetchall()]
