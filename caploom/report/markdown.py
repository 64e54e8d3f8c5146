"""The report's Markdown companion: readable in a terminal, with charts where Markdown shows pictures."""

import re

from caploom.common.text import markdown_text
from caploom.evaluation.metrics import DIRECTIONS
from caploom.questions.results.tables import markdown_table
from caploom.report.queries import Query
from caploom.report.sections import Cell, Content, Row, Section, text_of
from caploom.stages.artifact_names import artifact_label


def markdown_report(content: Content) -> str:
    """The whole report; links are relative to the report's own folder in the store."""
    blocks = [f"# Ablation report: {markdown_text(content.factory)}"]
    for section in content.sections:
        blocks += _section(section)
    blocks.append("## Artifacts")
    rows = [
        [
            f"[{markdown_text(artifact_label(artifact.manifest))}](../../{artifact.manifest.address}/manifest.json)",
            artifact.manifest.data_version,
            artifact.manifest.started,
        ]
        for artifact in content.artifacts
    ]
    blocks.append(markdown_table([["artifact", "data version", "made"], *rows]))
    blocks += [markdown_text(attribution) for attribution in content.attributions]
    return "\n\n".join(blocks) + "\n"


def without_files(markdown: str) -> str:
    """The report for the UI's metadata, without its files: no charts, no links to files."""
    text = re.sub(r"!\[(?:\\.|[^\]\\])*\]\(charts/[^)]*\)\n\n", "", markdown)
    text = re.sub(r"## [^\n]*\n\n(?=## )", "", text)  # the heading of charts alone
    return re.sub(r"\[((?:\\.|[^\]\\])+)\]\(\.\./\.\./[^)]*\)", r"\1", text)


def _section(section: Section) -> list[str]:
    blocks = [f"{'#' * section.level} {markdown_text(section.title)}"]
    if section.table is not None:
        blocks.append(markdown_table([[_cell(cell) for cell in row] for row in section.table]))
    if section.strong is not None:
        blocks.append(f"**{markdown_text(section.strong)}**")
    blocks += [markdown_text(sentence) for sentence in section.sentences]
    blocks += [f"![{markdown_text(chart.title)}](charts/{chart.name}.svg)" for chart in section.charts]
    if section.queries:
        header: Row = ["query", "asked", "right in", "wrong in", "rank there"]
        blocks.append(markdown_table([list(map(_cell, header)), *map(_query, section.queries)]))
    return blocks


def _query(query: Query) -> list[str]:
    which = f"image {query.image}" if query.direction == DIRECTIONS[0] else f"caption of {query.image}"
    cells = [which, " // ".join(query.asked), query.right, query.wrong, f"{query.rank:,}"]
    return [markdown_text(cell) for cell in cells]


def _cell(cell: Cell | str) -> str:
    """A cell's text; its artifact is listed at the end, where a link does not stretch the table."""
    text = text_of(cell)
    # Names and figures stay readable in a terminal: only markup is escaped.
    return markdown_text(text) if any(character in "\\`*[]|<>~!" for character in text) else text
