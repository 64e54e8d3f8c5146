"""`caploom results`: the recalls of every recipe."""

from pathlib import Path

import click

from caploom.commands.user_errors import factory_command


@factory_command
def results(config: Path) -> None:
    """Print Recall@1/5/10 of every measured recipe; in a narrow terminal, Recall@1."""
    from caploom.config.factory import Factory
    from caploom.questions.results.latest_results import latest_results
    from caploom.questions.results.terminal import results_text

    click.echo(results_text(latest_results(Factory.from_yaml(config))))
