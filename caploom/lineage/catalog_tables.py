"""The catalog's tables: what the manifests say, one row each, and where each image's pairs lie."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import duckdb
import pyarrow as pa

from caploom.lineage.artifact_names import label_of
from caploom.lineage.catalog_files import Damaged, Stamp, read_manifests
from caploom.store import Store
from caploom.tables import read_table
from caploom.training_set.order import first_words, image_digests

_TABLES = """
create table about (version text, root text);
create table seen (address text, written_ns bigint, size bigint);
create table manifest_rows (
    address text, kind text, name text[], label text, fingerprint text, data_version text, code_version text,
    configuration json, seeds json, rows_in bigint, rows_out bigint, rows_failed bigint, unit text, reasons json,
    summary json, packages json, caploom_version text, device text, run_id text, started timestamptz, seconds double,
    written_ns bigint
);
create table inputs (address text, position integer, input_address text, input_data_version text);
create table files (address text, name text, sha256 text, size bigint);
create table images (word ubigint, shard text, address text);
create table damaged (address text, path text, problem text);
create view manifests as
    select * exclude (written_ns),
        row_number() over (partition by kind, label order by started desc, written_ns desc, address desc) = 1
            as is_latest
    from manifest_rows;
"""
_OF_AN_ARTIFACT = ("seen", "manifest_rows", "inputs", "files", "images", "damaged")
_BLOCK = 2_000  # manifests in memory at a time

_MANIFESTS = pa.schema(
    [
        *(pa.field(name, pa.string()) for name in ("address", "kind")),
        pa.field("name", pa.list_(pa.string())),
        *(
            pa.field(name, pa.string())
            for name in ("label", "fingerprint", "data_version", "code_version", "configuration", "seeds")
        ),
        *(pa.field(name, pa.int64()) for name in ("rows_in", "rows_out", "rows_failed")),
        *(
            pa.field(name, pa.string())
            for name in ("unit", "reasons", "summary", "packages", "caploom_version", "device", "run_id", "started")
        ),
        pa.field("seconds", pa.float64()),
        pa.field("written_ns", pa.int64()),
    ]
)
_INPUTS = pa.schema(
    [
        pa.field("address", pa.string()),
        pa.field("position", pa.int32()),
        pa.field("input_address", pa.string()),
        pa.field("input_data_version", pa.string()),
    ]
)
_FILES = pa.schema(
    [
        pa.field("address", pa.string()),
        pa.field("name", pa.string()),
        pa.field("sha256", pa.string()),
        pa.field("size", pa.int64()),
    ]
)


def create_tables(connection: duckdb.DuckDBPyConnection, version: str, store: Store) -> None:
    """Empty tables of a store's catalog."""
    connection.execute(_TABLES)
    connection.execute("insert into about values (?, ?)", [version, str(store.root.resolve())])


def forget(connection: duckdb.DuckDBPyConnection, addresses: Sequence[str]) -> None:
    """Delete what the tables say of some artifacts."""
    if addresses:
        gone = pa.table({"address": list(addresses)})
        connection.register("gone", gone)
        for table in _OF_AN_ARTIFACT:
            connection.execute(f"delete from {table} where address in (select address from gone)")
        connection.unregister("gone")


def remember(connection: duckdb.DuckDBPyConnection, store: Store, stamps: Mapping[str, Stamp]) -> None:
    """Read the manifests of these addresses and add what they say; damaged ones to the table of those."""
    addresses = sorted(stamps)
    for start in range(0, len(addresses), _BLOCK):
        block = addresses[start : start + _BLOCK]
        manifests, damaged = [], []
        for address, said in read_manifests(store, iter(block)):
            if isinstance(said, Damaged):
                damaged.append({"address": address, "path": str(said.path), "problem": said.problem})
            elif isinstance(said, dict):
                manifests.append(said)
        _insert(connection, "manifest_rows", _MANIFESTS, (_row(each, stamps) for each in manifests))
        _insert(connection, "inputs", _INPUTS, _input_rows(manifests))
        _insert(connection, "files", _FILES, _file_rows(manifests))
        schema = pa.schema([pa.field(name, pa.string()) for name in ("address", "path", "problem")])
        _insert(connection, "damaged", schema, damaged)
        _remember_images(connection, store, manifests)
    seen = pa.table(
        {
            "address": addresses,
            "written_ns": pa.array([stamps[each][0] for each in addresses], pa.int64()),
            "size": pa.array([stamps[each][1] for each in addresses], pa.int64()),
        }
    )
    _insert_table(connection, "seen", seen)


def _row(said: Mapping[str, Any], stamps: Mapping[str, Stamp]) -> dict[str, Any]:
    rows = said.get("rows") or {}
    return {
        "address": said["address"],
        "kind": said["kind"],
        "name": said["address"].split("/")[1:-1],
        "label": label_of(said["address"]),
        **{name: said[name] for name in ("fingerprint", "data_version", "code_version")},
        **{name: json.dumps(said.get(name) or {}) for name in ("configuration", "seeds", "summary", "packages")},
        **{name: rows.get(name) for name in ("rows_in", "rows_out", "rows_failed", "unit")},
        "reasons": json.dumps(rows.get("reasons") or {}),
        **{name: said.get(name) for name in ("caploom_version", "device", "run_id", "started", "seconds")},
        "written_ns": stamps[said["address"]][0],
    }


def _input_rows(manifests: Iterable[Mapping[str, Any]]) -> Iterable[dict[str, Any]]:
    for said in manifests:
        for position, record in enumerate(said.get("inputs", [])):
            yield {
                "address": said["address"],
                "position": position,
                "input_address": record["address"],
                "input_data_version": record["data_version"],
            }


def _file_rows(manifests: Iterable[Mapping[str, Any]]) -> Iterable[dict[str, Any]]:
    for said in manifests:
        for name, record in said.get("files", {}).items():
            yield {"address": said["address"], "name": name, **record}


def _remember_images(
    connection: duckdb.DuckDBPyConnection, store: Store, manifests: Iterable[Mapping[str, Any]]
) -> None:
    for said in manifests:
        file = store.path(said["address"]) / "pairs.parquet"
        if said["kind"] != "raw_pairs" or not file.is_file():
            continue
        ids = read_table(file, ["image_id"]).column("image_id").unique()
        words = pa.array(first_words(image_digests(ids)))
        columns = {
            "word": words,
            "shard": pa.array([said["configuration"]["shard"]] * len(words), pa.string()),
            "address": pa.array([said["address"]] * len(words), pa.string()),
        }
        _insert_table(connection, "images", pa.table(columns))


def _insert(
    connection: duckdb.DuckDBPyConnection, table: str, schema: pa.Schema, rows: Iterable[Mapping[str, Any]]
) -> None:
    _insert_table(connection, table, pa.Table.from_pylist(list(rows), schema=schema))


def _insert_table(connection: duckdb.DuckDBPyConnection, table: str, rows: pa.Table) -> None:
    if len(rows):
        connection.register("new_rows", rows)
        connection.execute(f"insert into {table} by name select * from new_rows")
        connection.unregister("new_rows")
