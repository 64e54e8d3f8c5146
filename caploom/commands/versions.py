"""`caploom versions`: the results of recipes on each version of their data."""

import json
from pathlib import Path

import click

from caploom.commands.user_errors import factory_command


@factory_command
@click.argument("recipe", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of tables.")
def versions(config: Path, recipe: str | None, as_json: bool) -> None:
    """Show the results of RECIPE (or every recipe) on each version of its data, the oldest first.

    A version is another training set made with the same settings, as after new images. Each is compared to the one
    before it on the same queries, with the 95 % interval of the change over images. Nothing is made.
    """
    from caploom.config.factory import Factory
    from caploom.questions.results.data_versions import data_versions
    from caploom.report.versions import versions_markdown

    factory = Factory.from_yaml(config)
    names = [recipe] if recipe is not None else list(dict.fromkeys(e.base for e in factory.config.expanded_recipes()))
    found = [data_versions(factory, name) for name in names]
    if as_json:
        click.echo(json.dumps({"recipes": [each.to_dict() for each in found]}, indent=2))
        return
    click.echo("\n\n".join(versions_markdown(each) for each in found))
