"""`caploom results`: the recalls of every recipe."""

import sys
from pathlib import Path

import click

from caploom.commands.user_errors import factory_command


@factory_command
def results(config: Path) -> None:
    """Print Recall@1/5/10 of every measured recipe; in a narrow terminal, Recall@1.

    Of a factory that measures nothing, print what it has made.
    """
    from caploom.config.factory import Factory
    from caploom.questions.results.latest_results import latest_results
    from caploom.questions.results.made import made_so_far
    from caploom.questions.results.terminal import made_text, results_text

    width = None if sys.stdout.isatty() else sys.maxsize  # a program reads whole tables
    factory = Factory.from_yaml(config)
    measures = any(recipe.is_measured for recipe in factory.config.expanded_recipes())
    text = results_text(latest_results(factory), width=width) if measures else made_text(made_so_far(factory), width)
    click.echo(text)
