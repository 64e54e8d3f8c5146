"""`caploom trace`: every caption of an image, and what became of it."""

import json
from pathlib import Path

import click

from caploom.commands.user_errors import factory_command


@factory_command
@click.argument("image")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def trace(config: Path, image: str, as_json: bool) -> None:
    """Show every caption of IMAGE, what the shears cut, the training sets each landed in, and where it was retrieved.

    IMAGE is its identity or the beginning of it, its path in the pairs, or a file.
    """
    from caploom.config.factory import Factory
    from caploom.questions.trace.text import trace_text
    from caploom.questions.trace.trace_image import trace_image
    from caploom.stages.moves import moves_of

    factory = Factory.from_yaml(config)
    answer = trace_image(factory.store, image, moves=moves_of(factory))
    click.echo(json.dumps(answer.to_dict(), indent=2) if as_json else trace_text(answer))
