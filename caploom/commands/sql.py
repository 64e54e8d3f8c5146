"""`caploom sql`: queries the catalog in SQL."""

import csv
import json
import sys
from pathlib import Path
from typing import Any

import click

from caploom.commands.user_errors import factory_command


@factory_command
@click.argument("query", required=False)
@click.option("--json", "form", flag_value="json", help="Print one JSON record per row.")
@click.option("--csv", "form", flag_value="csv", help="Print CSV.")
@click.option("--limit", type=click.IntRange(1), default=100, show_default=True, help="Maximum number of rows shown.")
@click.option("--tables", is_flag=True, help="List the tables with their columns, instead of a query.")
def sql(config: Path, query: str | None, form: str | None, limit: int, tables: bool) -> None:
    """Query the catalog in SQL: DuckDB tables and views over manifests, captions, training sets and metrics.

    For example: caploom sql demo.yaml "select recipe, captioners, shear, r1_i2t from metrics order by 4 desc"
    """
    from caploom.catalog.catalog import open_catalog
    from caploom.catalog.query import aligned, ask, described_tables, described_text, json_value
    from caploom.config.factory import Factory

    if tables == (query is not None):
        raise click.UsageError("Give a query, or --tables to list the tables.")
    factory = Factory.from_yaml(config)
    if query is None:
        answer = described_tables()
    else:
        with open_catalog(factory.store) as catalog:
            answer = ask(catalog, factory.store, query)
    if form == "json":
        click.echo(json.dumps([dict(zip(answer.columns, map(json_value, row), strict=True)) for row in answer.rows]))
    elif form == "csv":
        writer = csv.writer(sys.stdout)
        writer.writerow(answer.columns)
        # A file gets the values unchanged; on a terminal they must not control it.
        writer.writerows([map(_shown, row) for row in answer.rows] if sys.stdout.isatty() else answer.rows)
    else:
        click.echo(described_text() if query is None else aligned(answer, limit=limit))


def _shown(value: Any) -> Any:
    from caploom.catalog.query import printable

    return printable(value) if isinstance(value, str) else value
