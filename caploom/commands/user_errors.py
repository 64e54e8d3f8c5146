"""How commands report a user's mistake."""

import functools
import sys
from collections.abc import Callable
from typing import Any

import click

from caploom.errors import CaploomError


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
