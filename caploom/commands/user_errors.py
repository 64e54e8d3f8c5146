"""What commands share: the factory's YAML as their first argument, and how they report a user's mistake."""

import functools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from caploom.errors import CaploomError

FACTORY_YAML = Path("caploom.yaml")
"""The YAML of a command that runs a factory, unless another one is named."""

runs_factory = click.argument("config", type=click.Path(path_type=Path), default=FACTORY_YAML)


def factory_command(command: Callable[..., None]) -> click.Command:
    """A command whose first argument, CONFIG, is a factory's YAML."""
    return click.command()(click.argument("config", type=click.Path(path_type=Path))(user_errors(command)))


def user_errors(command: Callable[..., None]) -> Callable[..., None]:
    """Turn a user's mistake into its message and exit code 2."""

    @functools.wraps(command)
    def guarded(*args: Any, **kwargs: Any) -> None:
        try:
            command(*args, **kwargs)
        except CaploomError as error:
            click.echo(str(error), err=True)
            sys.exit(2)

    return guarded
