"""The parts of a report: sections of sentences, tables, charts and queries, the same for page and Markdown."""

from dataclasses import dataclass, field
from typing import Any

from caploom.report.charts import Chart
from caploom.report.queries import Query
from caploom.storage.store import Artifact


@dataclass(frozen=True)
class Cell:
    """A cell of a table, and the artifact that its content is from."""

    text: str
    artifact: Artifact | None = None


Row = list[Cell | str]


def text_of(cell: Cell | str) -> str:
    """What a cell says."""
    return cell.text if isinstance(cell, Cell) else cell


@dataclass(frozen=True)
class Section:
    """A heading and its content; `name` is unique on the page."""

    name: str
    title: str
    level: int = 2
    sentences: list[str] = field(default_factory=list)
    strong: str | None = None
    table: list[Row] | None = None
    charts: list[Chart] = field(default_factory=list)
    queries: list[Query] = field(default_factory=list)


@dataclass(frozen=True)
class Content:
    """The whole report."""

    factory: str
    sections: list[Section]
    artifacts: list[Artifact]
    attributions: list[str]
    results: dict[str, Any]
    verdicts: dict[str, str]
