"""The catalog: DuckDB tables over the manifests and views over the Parquet files of a store. Never the truth.

It lies in `<store>/catalog.duckdb`, is brought up to date whenever it is opened, and is rebuilt from the files whenever
it is missing, damaged, of another version or store, or held open by somebody. A change is written to a copy that then
takes the file's place, so that who reads it is never in the way, and a killed refresh leaves the old one.
"""

import os
import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import duckdb

from caploom.lineage.catalog_files import Stamp, listed_manifests
from caploom.lineage.catalog_tables import create_tables, forget, remember
from caploom.lineage.catalog_views import create_views
from caploom.locks import one_at_a_time
from caploom.store import Store, is_abandoned

CATALOG_FILE = "catalog.duckdb"
VERSION = "1"
_LOCK = ".catalog.lock"


@contextmanager
def open_catalog(store: Store) -> Iterator[duckdb.DuckDBPyConnection]:
    """The catalog of a store, read-only and as the files are now.

    Tables: `manifests`, `inputs`, `files`, `images`, `damaged`. Views: `pairs`, `ledger`, `failures`, `sheared`,
    `training_rows`, `ranks`, `metrics`, `metrics_history`. See docs/catalog.md.
    """
    listed = listed_manifests(store)
    connection = _current(store, listed)
    if connection is None:
        connection = _refreshed(store)
    try:
        yield connection
    finally:
        connection.close()


def _current(store: Store, listed: Mapping[str, Stamp]) -> duckdb.DuckDBPyConnection | None:
    """The catalog as it lies there, if it is whole and up to date."""
    connection = _opened(store.root / CATALOG_FILE)
    if connection is None:
        return None
    if _is_ours(connection, store) and _seen(connection) == listed:
        return connection
    connection.close()
    return None


def _refreshed(store: Store) -> duckdb.DuckDBPyConnection:
    if not os.access(store.root, os.W_OK):
        return _in_memory(store)
    with one_at_a_time(store.root / _LOCK, f"{store.root / CATALOG_FILE}: another command brings it up to date."):
        listed = listed_manifests(store)
        current = _current(store, listed)  # the other command may have done it
        if current is not None:
            return current
        target = store.root / CATALOG_FILE
        _sweep(store.root)
        draft = store.root / f".{CATALOG_FILE}.{os.getpid()}.{uuid.uuid4().hex[:8]}"
        try:
            _write(store, draft, listed)
            draft.replace(target)
        finally:
            draft.unlink(missing_ok=True)
        opened = _opened(target)
    return opened if opened is not None else _in_memory(store)


def _write(store: Store, draft: Path, listed: Mapping[str, Stamp]) -> None:
    """The catalog of the listed manifests: the present one, a copy brought up to date, or one made from nothing."""
    present = _opened(store.root / CATALOG_FILE)
    seen: dict[str, Stamp] = {}
    if present is not None:
        if _is_ours(present, store):
            seen = _seen(present)
        present.close()
    if seen:
        shutil.copyfile(store.root / CATALOG_FILE, draft)
    with duckdb.connect(draft) as connection:
        if not seen:
            create_tables(connection, VERSION, store)
        _bring_up_to_date(connection, store, seen, listed)


def _in_memory(store: Store) -> duckdb.DuckDBPyConnection:
    """For a store that nobody may write to."""
    connection = duckdb.connect()
    create_tables(connection, VERSION, store)
    _bring_up_to_date(connection, store, {}, listed_manifests(store))
    return connection


def _bring_up_to_date(
    connection: duckdb.DuckDBPyConnection, store: Store, seen: Mapping[str, Stamp], listed: Mapping[str, Stamp]
) -> None:
    changed = {address: stamp for address, stamp in listed.items() if seen.get(address) != stamp}
    connection.execute("begin")
    forget(connection, [address for address in seen if address in changed or address not in listed])
    remember(connection, store, changed)
    create_views(connection, store)
    connection.execute("commit")


def _opened(path: Path) -> duckdb.DuckDBPyConnection | None:
    """A read-only connection; None where there is no file, where it is no catalog, or where somebody holds it."""
    if not path.is_file():
        return None
    try:
        return duckdb.connect(path, read_only=True)
    except (duckdb.Error, OSError):
        return None


def _is_ours(connection: duckdb.DuckDBPyConnection, store: Store) -> bool:
    try:
        rows = connection.execute("select version, root from about").fetchall()
        return rows == [(VERSION, str(store.root.resolve()))]
    except duckdb.Error:
        return False


def _seen(connection: duckdb.DuckDBPyConnection) -> dict[str, Stamp]:
    try:
        rows = connection.execute("select address, written_ns, size from seen").fetchall()
    except duckdb.Error:
        return {}
    return {address: (written, size) for address, written, size in rows}


def _sweep(root: Path) -> None:
    """Delete the copies of killed commands."""
    for left_over in root.glob(f".{CATALOG_FILE}.*"):
        if not left_over.name.endswith(".wal") and is_abandoned(left_over):
            with suppress(FileNotFoundError):
                left_over.unlink()
            left_over.with_name(f"{left_over.name}.wal").unlink(missing_ok=True)
