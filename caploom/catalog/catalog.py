"""The catalog: a DuckDB file next to the artifacts that answers questions about all of them at once.

It is never the truth: the manifests and tables are, and it is updated from them whenever it is opened. And it is never
in the way: one that is corrupt, old, of another store or in use is replaced by a new file, one that another version of
DuckDB wrote gets its views anew, and where none can be written, it is created in a temporary folder.
"""

import logging
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import duckdb

from caploom.catalog.files import (
    CATALOG_FILE,
    LOCK,
    Stamps,
    attached,
    discard,
    has_views_of_this_duckdb,
    known_stamps,
    log_of,
    new_file,
    stamps,
)
from caploom.catalog.rows import bring_up_to_date, create_tables
from caploom.catalog.views import create_views
from caploom.common.locks import one_at_a_time
from caploom.errors import StoreError
from caploom.storage.store import Store

_LOG = logging.getLogger(__name__)
_BUSY = "The catalog is being brought up to date by another process; waiting for it."


@contextmanager
def open_catalog(store: Store) -> Iterator[duckdb.DuckDBPyConnection]:
    """A read-only connection to the store's catalog, up to date with its manifests; see `schema`.

    The content of tables that the manifests name may be out of date, since only manifests are checked.

    Example:
        >>> with open_catalog(factory.store) as catalog:
        ...     catalog.execute("select reason, count(*) from failures where is_latest group by 1").fetchall()
        [('undecodable_image', 1)]
    """
    store.refresh()
    root = store.root.resolve()
    path = root / CATALOG_FILE
    with ExitStack() as stack:
        connection = _current(path, root, stamps(root))
        if connection is None:
            connection = _renewed(path, store)
        if connection is None:
            path = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="caploom-catalog-"))) / CATALOG_FILE
            _write(path, store, stamps(root), base=root / CATALOG_FILE)
            connection = attached(path)
        store.open_to(connection)
        stack.callback(connection.close)
        try:
            yield connection
        except duckdb.Error as error:
            if not _is_whole(connection):
                discard(path)
                raise StoreError(
                    f"{path}: the catalog was damaged ({_first_line(error)}) and has been deleted; run the command "
                    "again, and it will be rebuilt."
                ) from None
            raise


def _current(path: Path, root: Path, seen: Stamps) -> duckdb.DuckDBPyConnection | None:
    """A connection to the catalog's file, if that is sound and up to date with the manifests."""
    if not path.is_file():
        return None
    try:
        connection = attached(path)
    except duckdb.Error:
        return None
    try:
        if known_stamps(connection, root) == seen and has_views_of_this_duckdb(connection):
            return connection
    except duckdb.Error as error:
        _LOG.debug("The catalog %s is rebuilt: %s", path, error)
    connection.close()
    return None


def _renewed(path: Path, store: Store) -> duckdb.DuckDBPyConnection | None:
    """The same after the file was replaced, one process at a time; None when the store cannot be written."""
    root = store.root.resolve()
    try:
        with one_at_a_time(root / LOCK, _BUSY):
            seen = stamps(root)
            connection = _current(path, root, seen)  # another process may have done it meanwhile
            if connection is not None:
                return connection
            _write(path, store, seen, base=path)
            return attached(path)
    except (OSError, NotImplementedError, duckdb.Error) as error:
        _LOG.debug("The catalog cannot be stored at %s: %s", path, error)
        return None


def _write(path: Path, store: Store, seen: Stamps, base: Path) -> None:
    """Write a catalog under another name and rename it: `base` updated, or a new one."""
    temporary = new_file(path)
    try:
        if not _updated(base, temporary, store, seen):
            discard(temporary)
            with duckdb.connect(str(temporary)) as connection:
                store.open_to(connection)
                connection.execute("begin")
                create_tables(connection, store)
                bring_up_to_date(connection, store, {}, seen)
                connection.execute("commit")
                create_views(connection, store.tables_root)
        log_of(path).unlink(missing_ok=True)
        temporary.replace(path)
    finally:
        discard(temporary)


def _updated(base: Path, temporary: Path, store: Store, seen: Stamps) -> bool:
    """Whether `base` is sound and has been copied and updated."""
    if not base.is_file() or log_of(base).exists():
        return False
    try:
        with attached(base) as connection:  # which fails while another process writes it
            known = known_stamps(connection, store.root.resolve())
            if known is None:
                return False
            shutil.copyfile(base, temporary)
        with duckdb.connect(str(temporary)) as connection:
            store.open_to(connection)
            connection.execute("begin")
            bring_up_to_date(connection, store, known, seen)
            connection.execute("commit")
            create_views(connection, store.tables_root)
    except duckdb.Error as error:
        _LOG.debug("The catalog %s is rebuilt: %s", base, error)
        return False
    return True


def _is_whole(connection: duckdb.DuckDBPyConnection) -> bool:
    """Whether every block of the catalog can be read: each has a checksum."""
    try:
        tables = connection.execute("select table_name from duckdb_tables() where database_name = 'catalog'").fetchall()
        for (table,) in tables:
            connection.execute(f"select bit_xor(hash(columns(*))) from {table}").fetchall()
    except duckdb.Error:
        return False
    return True


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0]
