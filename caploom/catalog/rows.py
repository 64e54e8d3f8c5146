"""Fills the catalog: the rows of new and changed manifests, and what is derived from all of them."""

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import duckdb
import pyarrow as pa

from caploom.catalog.files import Stamps
from caploom.catalog.schema import (
    DAMAGED,
    FILES,
    IMAGES,
    INPUTS,
    MANIFESTS,
    STAMPS,
    TABLES,
    VERSION,
)
from caploom.catalog.views import UNREADABLE, as_pattern, describe
from caploom.errors import StoreError
from caploom.stages.artifact_names import artifact_label
from caploom.stages.registry import load_stage
from caploom.storage.duckdb_connection import connection_to
from caploom.storage.manifest import MANIFEST, Manifest
from caploom.storage.manifest_checks import checked_manifest
from caploom.storage.store import Store

_AT_ONCE = 4000  # manifests whose rows are held in memory
_ARROW = {
    "text": pa.string(),
    "json": pa.string(),
    "text[]": pa.list_(pa.string()),
    "bigint": pa.int64(),
    "integer": pa.int32(),
    "double": pa.float64(),
    "boolean": pa.bool_(),
    "timestamptz": pa.timestamp("us", "UTC"),
}


def create_tables(connection: duckdb.DuckDBPyConnection, store: Store) -> None:
    """The tables of an empty catalog."""
    for table in TABLES:
        columns = ", ".join(f'"{column.name}" {column.type}' for column in table.columns)
        connection.execute(f"create table {table.name} ({columns})")
        describe(connection, "table", table)
    connection.execute("insert into about values (?, ?, null)", [VERSION, str(store.root.resolve())])


def bring_up_to_date(connection: duckdb.DuckDBPyConnection, store: Store, known: Stamps, seen: Stamps) -> None:
    """Update a writable catalog from the manifests that it knew to those that exist."""
    stale = [address for address in known if seen.get(address) != known[address]]
    fresh = sorted(address for address in seen if known.get(address) != seen[address])
    _forget(connection, stale)
    for start in range(0, len(fresh), _AT_ONCE):
        _read(connection, store, fresh[start : start + _AT_ONCE], seen)
    _mark_latest(connection)


def _forget(connection: duckdb.DuckDBPyConnection, addresses: list[str]) -> None:
    if not addresses:
        return
    for table in (MANIFESTS, INPUTS, FILES, IMAGES, DAMAGED, STAMPS):
        connection.execute(f"delete from {table.name} where address in (select unnest(?::text[]))", [addresses])


def _read(connection: duckdb.DuckDBPyConnection, store: Store, addresses: Sequence[str], seen: Stamps) -> None:
    root = store.root.resolve()
    rows: dict[str, list[tuple[Any, ...]]] = {table.name: [] for table in (MANIFESTS, INPUTS, FILES, DAMAGED, STAMPS)}
    for address in addresses:
        try:
            manifest = checked_manifest(root, address)
        except StoreError as error:
            rows["damaged"].append((address, str(root / address / MANIFEST), str(error)))
        else:
            rows["manifests"].append(_manifest_row(manifest))
            rows["inputs"] += [
                (address, position, each.address, each.data_version) for position, each in enumerate(manifest.inputs)
            ]
            rows["files"] += [(address, name, file.sha256, file.size) for name, file in manifest.files.items()]
        rows[STAMPS.name].append((address, *seen[address]))
    for table in (MANIFESTS, INPUTS, FILES, DAMAGED, STAMPS):
        _insert(connection, table.name, [(column.name, column.type) for column in table.columns], rows[table.name])
    pairs = load_stage("raw_pairs")
    assert pairs.images is not None
    _read_images(connection, store, [row[0] for row in rows["manifests"] if row[1] == pairs.kind], pairs.images)


def _manifest_row(manifest: Manifest) -> tuple[Any, ...]:
    kind, *name, _ = manifest.address.split("/")
    rows = manifest.rows
    return (
        manifest.address,
        kind,
        name,
        artifact_label(manifest),
        manifest.fingerprint,
        manifest.data_version,
        manifest.code_version,
        _json(manifest.configuration),
        _json(manifest.seeds),
        rows.rows_in if rows else None,
        rows.rows_out if rows else None,
        rows.rows_failed if rows else None,
        rows.unit if rows else None,
        _json(rows.reasons) if rows else None,
        _json(manifest.summary),
        _json(manifest.packages),
        manifest.device,
        manifest.run_id,
        datetime.fromisoformat(manifest.started),
        manifest.seconds,
        False,
        manifest.caploom_version,
    )


def _json(value: Any) -> str:
    # NaN is not JSON, and DuckDB refuses it; it is null in a manifest's own text too.
    text = json.dumps(value, ensure_ascii=False)
    if "NaN" in text or "Infinity" in text:
        text = json.dumps(json.loads(text, parse_constant=lambda _: None), ensure_ascii=False)
    return text


def _insert(
    connection: duckdb.DuckDBPyConnection, table: str, columns: list[tuple[str, str]], rows: list[tuple[Any, ...]]
) -> None:
    if not rows:
        return
    values = zip(*rows, strict=True)
    arrays = [pa.array(column, _ARROW[kind]) for column, (_, kind) in zip(values, columns, strict=True)]
    connection.register("_rows", pa.table(arrays, names=[name for name, _ in columns]))
    connection.execute(f"insert into {table} select * from _rows")
    connection.unregister("_rows")


def _mark_latest(connection: duckdb.DuckDBPyConnection) -> None:
    """Mark the newest artifact of each kind and name; of several in one second, the one written last."""
    connection.execute(
        """
        update manifests set is_latest = ranked.newest from (
            select address, row_number() over (
                partition by label order by started desc, mtime_ns desc, address desc
            ) = 1 as newest
            from manifests join seen using (address)
        ) as ranked
        where ranked.address = manifests.address and ranked.newest <> is_latest
        """
    )


def _read_images(connection: duckdb.DuckDBPyConnection, store: Store, addresses: Sequence[str], table: str) -> None:
    """Record which images the pairs of these artifacts have; unreadable pairs are recorded as damaged."""
    there = [address for address in addresses if store.has_file(address, table)]
    try:
        _insert_images(connection, store, there, table)
    except duckdb.Error:  # one of them is not such a table; the others may be
        for address in there:
            try:
                _insert_images(connection, store, [address], table)
            except duckdb.Error:
                path = f"{store.tables_root}/{address}/{table}"
                connection.execute("insert into damaged values (?, ?, ?)", [address, path, f"{path}: {UNREADABLE}"])


def _insert_images(connection: duckdb.DuckDBPyConnection, store: Store, addresses: Sequence[str], table: str) -> None:
    if not addresses:
        return
    # Read completely before anything is written: an error within the transaction would end it.
    root = store.tables_root
    before, after = len(root) + 2, len(table) + 2
    files = [as_pattern(f"{root}/{address}/{table}") for address in addresses]
    query = f"""
        select distinct ('0x' || image_id[:16])::ubigint, string_split(held, '/')[-2], held from (
            select image_id, filename[{before}:-{after}] as held
            from read_parquet($files, filename = true, hive_partitioning = false)
        ) order by 3, 1
    """
    with connection_to(store) as reader:
        images = reader.sql(query, params={"files": files}).to_arrow_table()
    connection.register("_rows", images)
    connection.execute(f"insert into {IMAGES.name} select * from _rows")
    connection.unregister("_rows")
