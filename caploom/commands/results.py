"""`caploom results`: the recalls of every recipe."""

import sys
from pathlib import Path

import click

from caploom.commands.user_errors import factory_command


@factory_command
def results(config: Path) -> None:
    """Print Recall@1/5/10 of every measured recipe; in a narrow terminal, Recall@1."""
    from caploom.config.factory import Factory
    from caploom.questions.results.latest_results import latest_results
    from caploom.questions.results.terminal import results_text

    width = None if sys.stdout.isatty() else sys.maxsize  # a program reads whole tables
    click.echo(results_text(latest_results(Factory.from_yaml(config)), width=width))
