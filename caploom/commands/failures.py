"""`caploom failures`: every row that failed, and why."""

from itertools import chain
from pathlib import Path

import click

from caploom.commands.user_errors import factory_command


@factory_command
def failures(config: Path) -> None:
    """Print every row that failed, with its reason, and the rows of imported files that found no image."""
    from caploom.config.factory import Factory
    from caploom.questions.failures import current_failures, unmatched_imports

    factory, number = Factory.from_yaml(config), 0
    for where, row in chain(current_failures(factory), unmatched_imports(factory)):
        number += 1
        click.echo(f"{where}\t{row['reason']}\t{row['detail']}")
    click.echo(f"{number} failed rows.")
