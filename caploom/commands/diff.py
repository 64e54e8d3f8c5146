"""`caploom diff`: what differs between two recipes, or two versions of an artifact."""

import json
from pathlib import Path

import click

from caploom.commands.user_errors import factory_command


@factory_command
@click.argument("first")
@click.argument("second")
@click.option("--json", "form", flag_value="json", help="Print JSON.")
@click.option("--md", "form", flag_value="md", help="Print Markdown.")
def diff(config: Path, first: str, second: str, form: str | None) -> None:
    """Show what differs between FIRST and SECOND: configuration, code, inputs, rows, metrics, cost.

    Both are recipes of the YAML, or both are artifacts of one kind, named as for `caploom lineage`; NAME@1 is the
    version before the newest. Recalls are compared query by query, with 95 % intervals and p-values.
    """
    from caploom.config.factory import Factory
    from caploom.questions.diff.differences import differences
    from caploom.questions.diff.text import differences_markdown, differences_text

    found = differences(Factory.from_yaml(config), first, second)
    if form == "json":
        click.echo(json.dumps(found.to_dict(), indent=2))
    else:
        click.echo(differences_markdown(found) if form == "md" else differences_text(found))
