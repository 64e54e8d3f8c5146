"""The tables of results that the UI, the terminal and the report show: retrieval, classification, Markdown."""

from collections.abc import Sequence
from typing import TypeVar

from caploom.common.text import display_width, left
from caploom.evaluation.metrics import DIRECTIONS
from caploom.questions.results.results import (
    RECALL_AT,
    ArmResult,
    ClassificationRow,
    ResultRow,
    measured_labels,
    percent,
)

Table = list[list[str]]
"""The first row is the header."""

_Row = TypeVar("_Row", ResultRow, ClassificationRow)


def by_label(rows: Sequence[_Row]) -> dict[str, list[_Row]]:
    """The rows of each measurement: an evaluation set, a stage and a scoring."""
    groups: dict[str, list[_Row]] = {}
    for row in rows:
        groups.setdefault(row.label, []).append(row)
    return groups


def recall_table(rows: Sequence[ResultRow]) -> Table:
    """Recall@1/5/10 both ways in percent, chance as the last row."""
    header = ["recipe", "seeds", *(f"i2t R@{k}" for k in RECALL_AT), *(f"t2i R@{k}" for k in RECALL_AT)]
    table = [[*header, "mean R@1", "x chance"]]
    for row in rows:
        recalls = [percent(row.recall[f"{direction}@{k}"]) for direction in DIRECTIONS for k in RECALL_AT]
        table.append([row.recipe, str(len(row.seeds)), *recalls, _mean(row), f"{row.times_chance:.1f}"])
    first = rows[0]
    chances = [percent(first.chance[f"{direction}@{k}"]) for direction in DIRECTIONS for k in RECALL_AT]
    return [*table, ["(chance)", "", *chances, percent(first.mean_chance_at_1), "1.0"]]


def short_recall_table(rows: Sequence[ResultRow]) -> Table:
    """Recall@1 alone, chance as the last row."""
    table = [["recipe", "mean R@1", "x chance", "i2t R@1", "t2i R@1"]]
    for row in rows:
        both = [percent(row.recall[f"{direction}@1"]) for direction in DIRECTIONS]
        table.append([row.recipe, _mean(row), f"{row.times_chance:.1f}", *both])
    chances = [percent(rows[0].chance[f"{direction}@1"]) for direction in DIRECTIONS]
    return [*table, ["(chance)", percent(rows[0].mean_chance_at_1), "1.0", *chances]]


def _mean(row: ResultRow) -> str:
    """Mean Recall@1 in percent, with its spread over seeds."""
    return percent(row.mean_recall_at_1) + (f" ± {percent(row.spread)}" if row.spread is not None else "")


def measurement_tables(arm: ArmResult) -> dict[str, Table]:
    """Of each of an arm's measurements of retrieval, all figures by themselves: recalls with their intervals, ranks."""
    tables = {}
    for label, each in measured_labels(arm.metrics).items():
        table = [["", *(direction.replace("_", " ") for direction in DIRECTIONS)]]
        for k in RECALL_AT:
            cells = []
            for direction in DIRECTIONS:
                low, high = each[direction][f"interval@{k}"]
                cells.append(f"{percent(each[direction][f'recall@{k}'])} ({percent(low)} to {percent(high)})")
            table.append([f"Recall@{k}, % (95 % interval)", *cells])
        for figure in ("median_rank", "mean_rank"):
            table.append([figure.replace("_", " "), *(f"{each[direction][figure]:.1f}" for direction in DIRECTIONS)])
        table.append(["RSUM", f"{each['rsum']:.1f}", ""])
        table.append(["mean rank variance", "", f"{each['mean_rank_variance']:.1f}"])
        table.append(["images, captions", f"{each['images']:,}", f"{each['captions']:,}"])
        table += [[said, each[said], ""] for said in ("protocol", "note") if said in each]
        tables[label] = table
    return tables


def classification_table(rows: Sequence[ClassificationRow]) -> Table:
    """Zero-shot classification in percent: top-1, top-5, the mean over classes, chance."""
    names = list(rows[0].figures)
    table = [["recipe", "seeds", *(name.replace("_", " ") for name in names)]]
    for row in rows:
        table.append([row.recipe, str(len(row.seeds)), *(percent(row.figures[name]) for name in names)])
    return table


def markdown_table(table: Table) -> str:
    """A Markdown table, padded so that it reads in a terminal too."""
    widths = [max(map(display_width, column)) for column in zip(*table, strict=True)]
    lines = [f"| {' | '.join(map(left, row, widths))} |" for row in table]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)
