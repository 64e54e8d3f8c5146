"""`caploom compare`: whether one recipe retrieves better than another, query by query."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from caploom.commands.user_errors import factory_command

if TYPE_CHECKING:
    from caploom.evaluation.compare import Comparison


@factory_command
@click.argument("recipe_a")
@click.argument("recipe_b")
@click.option("--set", "name", help="Only this evaluation set; by default all that both recipes were measured on.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of tables.")
def compare(config: Path, recipe_a: str, recipe_b: str, name: str | None, as_json: bool) -> None:
    """Compare two measured recipes on the same queries: RECIPE_A's recalls minus RECIPE_B's.

    Each difference has its 95 % interval and two-sided p-value from a paired bootstrap over the queries. They are about
    these two checkpoints, and say nothing about the effect of another training seed.
    """
    from caploom.config.factory import Factory
    from caploom.questions.compare_recipes import compare_recipes

    compared = compare_recipes(Factory.from_yaml(config), recipe_a, recipe_b, evaluation_set=name)
    if as_json:
        records = [
            {"stage": each.stage, "evaluation_set": each.evaluation_set, **row.to_dict()}
            for each in compared
            for row in each.comparisons
        ]
        click.echo(json.dumps({"first": recipe_a, "second": recipe_b, "comparisons": records}, indent=2))
        return
    for each in compared:
        click.echo(f"{each.evaluation_set}, {each.stage}: {recipe_a} minus {recipe_b}")
        click.echo(_table(each.comparisons, recipe_a, recipe_b) + "\n")


def _table(comparisons: "list[Comparison]", first: str, second: str) -> str:
    from caploom.questions.results.tables import markdown_table

    table = [["scoring", "direction", "R@K", first, second, "difference", "95 % interval", "p", "queries"]]
    for row in comparisons:
        low, high = (100 * bound for bound in row.paired.interval)
        recalls = [f"{100 * row.first:.2f}", f"{100 * row.second:.2f}", f"{100 * row.paired.difference:+.2f}"]
        interval = [f"{low:+.2f} to {high:+.2f}", _p(row.paired.p_value), f"{row.queries:,}"]
        table.append([row.scoring, row.direction.replace("_", " "), str(row.k), *recalls, *interval])
    return markdown_table(table)


def _p(value: float) -> str:
    return "< 0.0001" if value < 0.0001 else f"{value:.4f}"
