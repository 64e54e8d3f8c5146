"""The inbox's journal: each file's version when last scanned, since when, and which shard took it.

An SQLite file in the store, which spares a scan from reading every listing. The listings themselves record which files
were taken, so a lost journal is filled again from them.
"""

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from caploom.inbox.kinds import kind_of
from caploom.storage.paths import ListedFile, folder_of, name_of

_SCHEMA = """
create table if not exists files(
    place text primary key,
    inbox text not null,
    folder text not null,
    stem text not null,
    kind text not null,
    version text not null,   -- size and time
    identity text not null,
    since real not null,     -- seconds of the machine's monotonic clock, when it was first seen as it is
    taken text,              -- the version that was taken, with its caption's
    rows integer not null default 0,  -- of that version, how many are in shards
    finished integer not null default 0,
    shard text,
    gone integer not null default 0
) without rowid;
create index if not exists files_by_stem on files(folder, stem, kind, gone);
create index if not exists files_by_identity on files(identity);
create index if not exists files_by_kind on files(kind);
create table if not exists shards(name text primary key) without rowid;
create table if not exists said(key text primary key) without rowid;
create table if not exists events(at text not null, sentence text not null);
create temp table seen(
    place text primary key, folder text, stem text, kind text, version text, identity text
) without rowid;
create temp table tabled(folder text primary key) without rowid;
create temp table whole(folder text primary key) without rowid;
create temp table gone_now(folder text primary key) without rowid;
"""

_BATCH = 5_000


@dataclass(frozen=True)
class Candidate:
    """A file that may be taken: its version with its caption's, when both last changed, and the rows taken already."""

    uri: str
    inbox: str
    kind: str
    version: str
    since: float
    rows_taken: int

    @property
    def size(self) -> int:
        """The file's size in bytes."""
        return int(self.version.partition(":")[0])  # see `Journal.see`


class Journal:
    """The open journal. One process uses it at a time (see `scan`)."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._database = sqlite3.connect(path, isolation_level=None)
        # A power cut may lose the last rows, never their order; and the listings record what was taken.
        self._database.execute("pragma journal_mode = wal")
        self._database.execute("pragma synchronous = normal")
        self._database.executescript(_SCHEMA)

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Execute the block completely or not at all."""
        self._database.execute("begin immediate")
        try:
            yield
        except BaseException:
            self._database.execute("rollback")
            raise
        self._database.execute("commit")

    def rows(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        """The rows of a query; `values` replace its question marks, or are one mapping of its names."""
        named = values[0] if len(values) == 1 and isinstance(values[0], dict) else values
        return self._database.execute(query, named).fetchall()

    def run(self, statement: str, *values: Any) -> None:
        """Execute a statement."""
        self._database.execute(statement, values)

    def see(self, files: Iterable[ListedFile], marker: str) -> list[str]:
        """Remember a folder's files until the next call; returns names that are not text, as Python literals."""
        unspeakable: list[str] = []
        self.run("delete from seen")
        batch: list[tuple[str, ...]] = []
        for file in files:
            try:
                file.uri.encode("utf-8")
            except UnicodeEncodeError:
                unspeakable.append(ascii(file.uri))
                continue
            kind, stem = kind_of(name_of(file.uri), marker)
            version = f"{file.size}:{file.modified}"
            batch.append((file.uri, folder_of(file.uri), stem, kind.value, version, file.identity))
            if len(batch) == _BATCH:
                self._see(batch)
                batch = []
        self._see(batch)
        return unspeakable

    def _see(self, batch: Sequence[tuple[str, ...]]) -> None:
        self._database.executemany("insert or ignore into seen values (?, ?, ?, ?, ?, ?)", batch)

    def remember(self, table: str, uris: Iterable[str]) -> None:
        """Let queries see some folders or files, until the next call, in the table `tabled`, `whole` or `gone_now`."""
        self.run(f"delete from {table}")
        self._database.executemany(f"insert or ignore into {table} values (?)", ((uri,) for uri in uris))

    def take(self, shard: str, records: Sequence[dict[str, Any]]) -> None:
        """Record that a shard has these files' rows (as INBOX_FILES)."""
        with self.transaction():
            self._database.executemany(
                "insert into files(place, inbox, folder, stem, kind, version, identity, since, taken, rows, finished,"
                " shard, gone) values (:place, '', '', '', 'unknown', '', '', 0, :version, :rows_so_far, :finished,"
                " :shard, 1) on conflict(place) do update set taken = excluded.taken, rows = excluded.rows,"
                " finished = excluded.finished, shard = excluded.shard",
                [{**record, "rows_so_far": record["first_row"] + record["rows"], "shard": shard} for record in records],
            )
            self.run("insert or ignore into shards values (?)", shard)

    def log_event(self, sentence: str) -> None:
        """Record an event."""
        self.run("insert into events values (?, ?)", datetime.now(UTC).isoformat(timespec="seconds"), sentence)

    def is_news(self, key: str) -> bool:
        """Whether a fault is reported for the first time; it is remembered."""
        if self.rows("select 1 from said where key = ?", key):
            return False
        self.run("insert into said values (?)", key)
        return True

    def is_over(self, key: str) -> bool:
        """Whether a fault had been reported; it is forgotten, so that it would be news again."""
        if not self.rows("select 1 from said where key = ?", key):
            return False
        self.run("delete from said where key = ?", key)
        return True
