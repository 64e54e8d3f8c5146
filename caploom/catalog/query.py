"""Queries the catalog: one query that can read only the store, and its answer as a table for a terminal."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Any

import duckdb

from caploom.catalog.schema import SHOWN
from caploom.catalog.views import as_pattern
from caploom.common.text import display_width, left, right
from caploom.errors import StoreError
from caploom.storage.store import Store

_ASKING = {duckdb.StatementType.SELECT, duckdb.StatementType.EXPLAIN}
_WIDEST = 60  # characters of a cell in a terminal
_MANY_ROWS = 1_000_000  # a larger answer belongs in a file


@dataclass(frozen=True)
class Answer:
    """A table: the names of its columns, and its rows."""

    columns: list[str]
    rows: list[tuple[Any, ...]]


def ask(catalog: duckdb.DuckDBPyConnection, store: Store, query: str) -> Answer:
    """The answer to one query, which can read only the store, and writes nothing.

    Raises:
        StoreError: with DuckDB's message, if it refuses the query or the query returns no table.

    Example:
        >>> from caploom.catalog.catalog import open_catalog
        >>> with open_catalog(factory.store) as catalog:
        ...     ask(catalog, factory.store, "select recipe, r1_i2t from metrics order by 2 desc").rows
        [('sheared', 1.0), ('raw-only', 0.5)]
    """
    try:
        _confine(catalog, store.tables_root)
        statements = catalog.extract_statements(query)
        # The query may read the store but not write to it: DuckDB would allow `copy ... to` in the store's own folder.
        if len(statements) != 1 or statements[0].type not in _ASKING:
            raise StoreError("The catalog answers one query that only reads (select, describe, explain).")
        result = catalog.execute(statements[0])
        columns = [column[0] for column in result.description or ()]
        rows = result.fetchmany(_MANY_ROWS + 1)
    except duckdb.Error as error:
        message = str(error).split("\n\nLINE ")[0]  # the query follows, with a marker below the error
        raise StoreError(f"DuckDB cannot answer: {printable(' '.join(message.split()))}") from None
    if len(rows) > _MANY_ROWS:
        raise StoreError(f"The answer has more than {_MANY_ROWS:,} rows; add a `limit`, or ask with DuckDB itself.")
    return Answer(columns, rows)


def _confine(catalog: duckdb.DuckDBPyConnection, root: str) -> None:
    """Confine a connection to the store's files, from now on."""
    if catalog.execute("select current_setting('lock_configuration')").fetchone() == (True,):
        return
    # The views name files by patterns, in which some characters of the folder's name are escaped.
    catalog.execute("set allowed_directories = [?, ?]", [root, as_pattern(root)])
    catalog.execute("set enable_external_access = false")
    catalog.execute("set lock_configuration = true")


def described_tables() -> Answer:
    """Every column of every table: its type and what it means."""
    return Answer(
        ["table", "column", "type", "meaning"],
        [(table.name, column.name, column.type, column.about) for table in SHOWN for column in table.columns],
    )


def described_text() -> str:
    """The same as text: each table with its description, and its columns below it."""
    lines = []
    for table in SHOWN:
        width = max(len(column.name) for column in table.columns)
        kinds = max(len(column.type) for column in table.columns)
        lines += [f"{table.name}: {table.about}"]
        lines += [f"  {each.name:{width}}  {each.type:{kinds}}  {each.about}" for each in table.columns]
        lines.append("")
    return "\n".join(lines).rstrip()


def aligned(answer: Answer, *, limit: int | None) -> str:
    """The answer as an aligned table; captions cannot control the terminal. With a limit, long cells are cut too."""
    shown = answer.rows if limit is None else answer.rows[:limit]
    widest = None if limit is None else _WIDEST
    cells = [answer.columns, *([_cell(value, widest) for value in row] for row in shown)]
    widths = [max(display_width(row[index]) for row in cells) for index in range(len(answer.columns))]
    numbers = [all(isinstance(row[index], int | float | None) for row in shown) for index in range(len(widths))]
    lines = [_line(row, widths, numbers) for row in cells]
    lines.insert(1, "  ".join("-" * width for width in widths))
    more = len(answer.rows) - len(shown)
    return "\n".join([*lines, *([f"... and {more:,} more rows: --limit, --json or --csv show them."] if more else [])])


def printable(text: str) -> str:
    """A text with spaces in place of everything that would control a terminal."""
    return "".join(character if character.isprintable() else " " for character in text)


def json_value(value: Any) -> Any:
    """A DuckDB value as a JSON value."""
    if isinstance(value, datetime | date):
        return value.isoformat()
    if isinstance(value, Decimal):
        return float(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None  # JSON has no other numbers
    if isinstance(value, list | tuple):
        return [json_value(each) for each in value]
    if isinstance(value, dict):
        return {str(key): json_value(each) for key, each in value.items()}
    return value if value is None or isinstance(value, str | int) else str(value)


def _line(cells: Sequence[str], widths: Sequence[int], numbers: Sequence[bool]) -> str:
    placed = zip(cells, widths, numbers, strict=True)
    return "  ".join((right if number else left)(cell, width) for cell, width, number in placed).rstrip()


def _cell(value: Any, widest: int | None) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1000 else f"{value:,.1f}"
    text = printable(str(value))
    return text if widest is None or len(text) <= widest else f"{text[: widest - 1]}…"
