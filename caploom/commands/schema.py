"""`caploom schema`: the JSON Schema of a factory's YAML."""

import click


@click.command()
def schema() -> None:
    """Print the JSON Schema of a factory's YAML, for editors: it knows every key and its values."""
    from caploom.config.factory_schema import schema_text

    click.echo(schema_text(), nl=False)
