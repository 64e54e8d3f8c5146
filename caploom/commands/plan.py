"""`caploom plan`: what a run would make and how long it would take, before anything runs."""

import json
from pathlib import Path

import click

from caploom.commands.user_errors import user_errors


@click.command()
@click.argument("config", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print JSON, with what each number was reckoned from.")
@user_errors
def plan(config: Path, as_json: bool) -> None:
    """Preview what a run of the YAML would still make, and what it costs. Nothing is made.

    Counts are of what the store lacks. Seconds are reckoned at the rates that were measured in this store; where
    nothing like it has run yet, they are not known, and it says so.
    """
    from caploom.factory import Factory
    from caploom.lineage.cost.plan_cost import plan_cost
    from caploom.lineage.cost.text import cost_text

    found = plan_cost(Factory.from_yaml(config))
    click.echo(json.dumps(found.to_dict(), indent=2) if as_json else cost_text(found))
