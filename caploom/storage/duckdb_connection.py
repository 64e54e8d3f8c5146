"""Connections of DuckDB that read the store's tables.

Starting a database takes DuckDB as long as a small question, and a shard asks many of them: they are asked of one
database in memory, which a process starts once. A connection of it sees no other one's temporary tables.
"""

import os
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from threading import Lock
from typing import TYPE_CHECKING

from caploom.storage.paths import is_url
from caploom.storage.store import Store

if TYPE_CHECKING:  # it takes a while to import, and planning asks it nothing
    import duckdb

_DATABASES: dict[int, "duckdb.DuckDBPyConnection"] = {}
"""By process: a fork has none of the threads of its parent's database."""
_STARTING = Lock()


@contextmanager
def connection_to(store: Store) -> Iterator["duckdb.DuckDBPyConnection"]:
    """A connection that reads the tables of a store: it registers and creates nothing but what is temporary."""
    if is_url(store.tables_root):
        import duckdb

        with duckdb.connect() as connection:  # of its own: what opens one store's files would open another's
            store.open_to(connection)
            yield connection
        return
    with in_memory() as connection:
        yield connection


@contextmanager
def in_memory() -> Iterator["duckdb.DuckDBPyConnection"]:
    """A connection that reads local files and what is registered with it."""
    import duckdb

    with closing(_connected()) as connection:
        try:
            yield connection
        except (duckdb.FatalException, duckdb.InternalException):
            _DATABASES.pop(os.getpid(), None)  # it answers nothing any more
            raise


def _connected() -> "duckdb.DuckDBPyConnection":
    import duckdb

    with _STARTING:
        database = _DATABASES.get(os.getpid())
        if database is None:
            database = _DATABASES[os.getpid()] = duckdb.connect()
            with suppress(duckdb.Error):  # which versions before 1.3 do not have
                database.execute("set enable_external_file_cache = false")  # tables are read once
        return database.cursor()
