"""The `caploom` command: look into a factory from a terminal. Nothing here makes an artifact; `make run` does."""

import functools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

import caploom
from caploom.errors import CaploomError

_CONFIG = click.argument("config", type=click.Path(path_type=Path))


def _user_errors(command: Callable[..., None]) -> Callable[..., None]:
    """A user's mistake ends in its sentence and exit code 2."""

    @functools.wraps(command)
    def guarded(*args: Any, **kwargs: Any) -> None:
        try:
            command(*args, **kwargs)
        except CaploomError as error:
            click.echo(str(error), err=True)
            sys.exit(2)

    return guarded


@click.group()
@click.version_option(caploom.__version__)
def main() -> None:
    """A dataset factory for vision-language training."""


@main.command()
@_CONFIG
@_user_errors
def check(config: Path) -> None:
    """Validate a factory's YAML and list what it would make."""
    from caploom.captioning.identity import captioner_fingerprint
    from caploom.config import load_config

    loaded = load_config(config)
    click.echo(f"{config}: the factory {loaded.name} is well formed; its artifacts lie in {loaded.store}.")
    for name, captioner in loaded.captioners.items():
        click.echo(f"captioner {name}: {captioner.model} ({captioner_fingerprint(captioner)})")
    for recipe in loaded.expanded_recipes():
        captioners = ", ".join(recipe.captioners) or "raw captions only"
        click.echo(
            f"recipe {recipe.name}: {captioners}; shear {recipe.shear}; mix {recipe.mix.strategy}; seed {recipe.seed}"
        )


@main.command()
@_CONFIG
@_user_errors
def results(config: Path) -> None:
    """Print Recall@1/5/10 of every measured recipe."""
    from caploom.factory import Factory
    from caploom.lineage.report import by_evaluation_set, markdown_table, recall_table
    from caploom.lineage.results import finished_arms, result_rows, verdict

    arms, waiting = finished_arms(Factory.from_yaml(config))
    for name, rows in by_evaluation_set(result_rows(arms)).items():
        click.echo(f"{name}\n{markdown_table(recall_table(rows))}\n{verdict(rows)}")
    if waiting:
        click.echo(f"Not measured yet: {', '.join(recipe.name for recipe in waiting)}.")


@main.command()
@_CONFIG
@_user_errors
def failures(config: Path) -> None:
    """Print every row that failed, with its reason."""
    from caploom.factory import Factory
    from caploom.lineage.failures import current_failures

    number = 0
    for where, row in current_failures(Factory.from_yaml(config)):
        number += 1
        click.echo(f"{where}\t{row['reason']}\t{row['detail']}")
    click.echo(f"{number} failed rows.")


if __name__ == "__main__":
    main()
