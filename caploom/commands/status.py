"""`caploom status`: which of a factory's artifacts are missing or stale, and why."""

import gc
import json
import sys
from pathlib import Path

import click

from caploom.commands.user_errors import factory_command


@factory_command
@click.option("--json", "as_json", is_flag=True, help="Print JSON, one record per slot.")
@click.option("--all", "everything", is_flag=True, help="Also show what is current.")
@click.option("--check", is_flag=True, help="Exit with 1 unless everything is current.")
def status(config: Path, as_json: bool, everything: bool, check: bool) -> None:
    """Show what is missing or stale, and why, over the whole graph of the present YAML. Nothing is made.

    stale: its own configuration, code or inputs changed. outdated: something upstream is not current, and it waits for
    that. missing: never made.
    """
    from caploom.config.factory import Factory
    from caploom.questions.status.factory_status import factory_status
    from caploom.questions.status.text import status_text

    gc.set_threshold(1_000_000)  # a large store has a million objects in its manifests, none of them garbage
    found = factory_status(Factory.from_yaml(config))
    if as_json:
        click.echo(json.dumps(found.to_dict(everything=everything), indent=2))
    else:
        click.echo(status_text(found, everything=everything))
    if check and not found.is_current:
        sys.exit(1)
