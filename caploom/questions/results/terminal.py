"""What was measured, for a terminal: tables that fit its width, who won, and what is not measured yet."""

import io
import shutil
from collections.abc import Sequence
from textwrap import fill

from caploom.common.text import display_width
from caploom.questions.results.latest_results import LatestResults
from caploom.questions.results.made import Made
from caploom.questions.results.results import classification_rows, result_rows, verdict
from caploom.questions.results.tables import (
    Table,
    by_label,
    classification_table,
    markdown_table,
    recall_table,
    short_recall_table,
)


def results_text(latest: LatestResults, *, width: int | None = None, best_first: bool = False) -> str:
    """The tables and sentences, in lines of at most `width` characters (by default the terminal's, else 80)."""
    width = width or shutil.get_terminal_size((80, 24)).columns
    blocks = []
    for label, rows in by_label(result_rows(latest.arms)).items():
        ordered = sorted(rows, key=lambda row: -row.mean_recall_at_1) if best_first else rows
        tables = (recall_table(ordered), short_recall_table(ordered))
        blocks += [f"Retrieval on {label} (percent)", fitting(tables, width), fill(verdict(rows), width)]
    for label, classified in by_label(classification_rows(latest.arms)).items():
        blocks += [f"Classification on {label} (percent)", fitting([classification_table(classified)], width)]
    return "\n\n".join([*blocks, *(fill(sentence, width) for sentence in latest.sentences())])


def made_text(made: Made, width: int | None = None) -> str:
    """What was made where nothing is measured, in lines of at most `width` characters, by default the terminal's."""
    width = width or shutil.get_terminal_size((80, 24)).columns
    return "\n\n".join(fitting([table], width) for table in made.tables())


def fitting(tables: Sequence[Table], width: int) -> str:
    """The first of some tables that fits into lines of that width; else the last one, with its cells folded."""
    for table in tables:
        text = markdown_table(table)
        if display_width(text.splitlines()[0]) <= width:
            return text
    return _folded(tables[-1], width)


def _folded(table: Table, width: int) -> str:
    from rich import box
    from rich.console import Console
    from rich.table import Table as RichTable
    from rich.text import Text

    head, *rows = table
    drawn = RichTable(box=box.MARKDOWN)
    for name in head:
        drawn.add_column(Text(name), overflow="fold")
    for row in rows:
        drawn.add_row(*(Text(cell) for cell in row))
    out = io.StringIO()
    Console(file=out, width=width, color_system=None).print(drawn)
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines() if line.strip())
