"""The catalog's file: listing a store's manifests, and opening, naming and deleting the file."""

import os
from pathlib import Path

import duckdb

from caploom.catalog.schema import VERSION
from caploom.catalog.views import quoted
from caploom.stages.artifact_names import NOT_KINDS
from caploom.storage.manifest import MANIFEST
from caploom.storage.writing import draft_beside, is_abandoned

CATALOG_FILE = "catalog.duckdb"
LOCK = ".catalog.lock"

Stamps = dict[str, tuple[int, int]]
"""For each address, when its manifest was written (nanoseconds) and its size in bytes."""

_DEEPEST = 12  # nested folders: more would be a link back up


def stamps(root: Path) -> Stamps:
    """The manifests that lie below a store."""
    found: Stamps = {}
    for kind in sorted(_folders(str(root))):
        if kind not in NOT_KINDS:
            _gather(f"{root}/{kind}", kind, 1, found)
    return found


def _gather(folder: str, address: str, depth: int, found: Stamps) -> None:
    for name in _folders(folder):
        path, below = f"{folder}/{name}", f"{address}/{name}"
        try:
            stat = os.stat(f"{path}/{MANIFEST}")  # noqa: PTH116 (called for every artifact)
        except OSError:
            if depth < _DEEPEST:
                _gather(path, below, depth + 1, found)
        else:
            found[below] = (stat.st_mtime_ns, stat.st_size)


def _folders(folder: str) -> list[str]:
    try:
        with os.scandir(folder) as entries:
            return [entry.name for entry in entries if not entry.name.startswith(".") and entry.is_dir()]
    except OSError:
        return []  # gone meanwhile, or not permitted: it has no readable artifact


def attached(path: Path) -> duckdb.DuckDBPyConnection:
    """A read-only connection to a catalog's file; raises `duckdb.Error` when it is not one or is being written.

    The file is attached to a database in memory: a process that opened an earlier catalog under this name would be
    given that one again.
    """
    connection = duckdb.connect(":memory:", config={"autoinstall_known_extensions": False})
    try:
        connection.execute(f"attach {quoted(str(path))} as catalog (read_only)")
        connection.execute("use catalog")
    except duckdb.Error:
        connection.close()
        raise
    return connection


def known_stamps(connection: duckdb.DuckDBPyConnection, root: Path) -> Stamps | None:
    """The manifests that a catalog has read; None when it has another version or store. May raise `duckdb.Error`."""
    if connection.execute("select version, root from about").fetchall() != [(VERSION, str(root))]:
        return None
    rows = connection.execute("select address, mtime_ns, size from seen").fetchall()
    return {address: (mtime_ns, size) for address, mtime_ns, size in rows}


def has_views_of_this_duckdb(connection: duckdb.DuckDBPyConnection) -> bool:
    """Whether this version of DuckDB wrote a catalog's views; another one's may not work. May raise `duckdb.Error`."""
    return connection.execute("select duckdb from about").fetchall() == [(duckdb.__version__,)]


def new_file(path: Path) -> Path:
    """The name under which a new catalog is written; files left by killed processes are deleted."""
    for left_over in path.parent.iterdir():
        if left_over.name.startswith(f".{path.name}.") and is_abandoned(left_over):
            left_over.unlink(missing_ok=True)
    return draft_beside(path)


def discard(path: Path) -> None:
    """Delete a catalog's file and its log of writes."""
    path.unlink(missing_ok=True)
    log_of(path).unlink(missing_ok=True)


def log_of(path: Path) -> Path:
    """Where DuckDB logs writes that are not in the file yet."""
    return path.with_name(path.name + ".wal")
