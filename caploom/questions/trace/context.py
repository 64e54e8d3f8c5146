"""Shared by all parts of a trace: the store, the catalog, the image, and notes on unreadable artifacts."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.compute as pc

from caploom.errors import StoreError
from caploom.storage.store import Store
from caploom.storage.tables import read_table


@dataclass
class TraceContext:
    """The image of a trace, and where to search for it; `notes` gets a sentence for everything gone or damaged."""

    store: Store
    catalog: duckdb.DuckDBPyConnection
    image_id: str
    notes: list[str] = field(default_factory=list)

    def rows(self, address: str, file: str, column: str = "image_id") -> list[dict[str, Any]]:
        """The image's rows in a table of an artifact."""
        return self.rows_of(self.store.file(address, file), column)

    def rows_of(self, path: Path, column: str = "image_id") -> list[dict[str, Any]]:
        """The image's rows in a table."""
        try:
            table = read_table(path)
        except StoreError as error:
            self.notes.append(str(error))
            return []
        rows: list[dict[str, Any]] = table.filter(pc.equal(table[column], self.image_id)).to_pylist()
        return rows

    def made_from(self, inputs: list[str], kind: str, columns: str) -> list[tuple[Any, ...]]:
        """The manifests of a kind that were made from any of these, each once, the oldest first."""
        rows: list[tuple[Any, ...]] = self.catalog.execute(
            f"select {columns} from manifests where kind = ? and address in (select address from inputs"
            " where input_address in (select unnest(?::text[]))) order by started, address",
            [kind, inputs],
        ).fetchall()
        return rows

    def damaged(self) -> list[str]:
        """Note the files that the catalog could not read: the image may be in them."""
        rows = self.catalog.execute("select path, problem from damaged order by path limit 5").fetchall()
        return [f"{path} cannot be read, so its content is missing here: {problem}" for path, problem in rows]
