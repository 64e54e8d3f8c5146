"""Asks the catalog: one query that can read the store and nothing else, and its answer as a table for a terminal."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import duckdb

from caploom.errors import StoreError
from caploom.store import Store

TABLES = {
    "manifests": "One row an artifact: what made it, its figures, when; is_latest: the newest of its label.",
    "inputs": "Which artifacts an artifact was made from.",
    "files": "The files of each artifact, with their SHA-256.",
    "images": "Which raw pairs hold an image; word: the first 64 bits of its identity.",
    "damaged": "Manifests that cannot be relied on, and why.",
    "pairs": "Every ingested pair.",
    "ledger": "Every caption ever made, unsheared.",
    "sheared": "Captions as their shear left them.",
    "training_rows": "One row a caption that training draws, with its probability among its image's.",
    "training_images": "One row an image of a training set, its captions as lists.",
    "failures": "Every row that failed, with its reason.",
    "ranks": "The rank of every query of every measurement.",
    "metrics": "One row a recipe, evaluation set, stage and scoring: what was reached and what it cost; shares, 0 to 1.",
    "metrics_history": "The same of all versions of a recipe.",
}
"""What can be asked, and what it is."""

_WIDEST = 60  # characters of a cell in a terminal
_MANY_ROWS = 1_000_000  # a larger answer belongs into a file


@dataclass(frozen=True)
class Answer:
    """A table: the names of its columns, and its rows."""

    columns: list[str]
    rows: list[tuple[Any, ...]]


def ask(catalog: duckdb.DuckDBPyConnection, store: Store, query: str) -> Answer:
    """The answer to one query; it reads the store alone, and writes nothing.

    Raises:
        StoreError: with DuckDB's own words, if it refuses the query or the query gives no table.
    """
    try:
        catalog.execute("set allowed_directories = [?]", [str(store.root.resolve())])
        catalog.execute("set enable_external_access = false")
        catalog.execute("set lock_configuration = true")
        result = catalog.execute(query)
        if result.description is None:
            raise StoreError("The query gives no table; write a select.")
        columns = [column[0] for column in result.description]
        rows = result.fetchmany(_MANY_ROWS + 1)
    except duckdb.Error as error:
        raise StoreError(f"DuckDB cannot answer: {' '.join(str(error).split())}") from None
    if len(rows) > _MANY_ROWS:
        raise StoreError(f"The answer has more than {_MANY_ROWS:,} rows; add a `limit`, or ask with DuckDB itself.")
    return Answer(columns, rows)


def described_tables(catalog: duckdb.DuckDBPyConnection) -> Answer:
    """Every table with its columns and what it is."""
    columns: dict[str, list[str]] = {}
    for table, column in catalog.execute(
        "select table_name, column_name from information_schema.columns order by table_name, ordinal_position"
    ).fetchall():
        columns.setdefault(table, []).append(column)
    return Answer(
        ["table", "what it is", "columns"], [(name, what, ", ".join(columns[name])) for name, what in TABLES.items()]
    )


def aligned(answer: Answer, *, limit: int | None) -> str:
    """The answer as an aligned table; captions cannot steer the terminal. With a limit, long cells are cut too."""
    shown = answer.rows if limit is None else answer.rows[:limit]
    widest = None if limit is None else _WIDEST
    cells = [answer.columns, *([_cell(value, widest) for value in row] for row in shown)]
    widths = [max(len(row[place]) for row in cells) for place in range(len(answer.columns))]
    numbers = [all(isinstance(row[place], int | float | None) for row in shown) for place in range(len(widths))]
    lines = [_line(row, widths, numbers) for row in cells]
    lines.insert(1, "  ".join("-" * width for width in widths))
    more = len(answer.rows) - len(shown)
    return "\n".join([*lines, *([f"... and {more:,} more rows: --limit, --json or --csv show them."] if more else [])])


def json_value(value: Any) -> Any:
    """A value of DuckDB's as JSON has it."""
    if isinstance(value, datetime | date):
        return value.isoformat()
    if isinstance(value, Decimal):
        return float(value)
    if isinstance(value, UUID | bytes):
        return str(value)
    if isinstance(value, list | tuple):
        return [json_value(each) for each in value]
    if isinstance(value, dict):
        return {key: json_value(each) for key, each in value.items()}
    return value


def _line(cells: Sequence[str], widths: Sequence[int], numbers: Sequence[bool]) -> str:
    placed = zip(cells, widths, numbers, strict=True)
    return "  ".join(cell.rjust(width) if number else cell.ljust(width) for cell, width, number in placed).rstrip()


def _cell(value: Any, widest: int | None) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1000 else f"{value:,.1f}"
    text = "".join(character if character.isprintable() else " " for character in str(value))
    return text if widest is None or len(text) <= widest else f"{text[: widest - 1]}…"
