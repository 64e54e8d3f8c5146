"""`caploom check`: whether a YAML is valid, and what it would make."""

from pathlib import Path

import click

from caploom.commands.user_errors import factory_command


@factory_command
def check(config: Path) -> None:
    """Validate a factory's YAML and list what it would make."""
    from caploom.captioning.identity import captioner_fingerprint
    from caploom.config.factory_config import load_config

    loaded = load_config(config)
    click.echo(f"{config}: the factory {loaded.name} is valid; its artifacts are in {loaded.store}.")
    for name, captioner in loaded.captioners.items():
        click.echo(f"captioner {name}: {captioner.label} ({captioner_fingerprint(captioner)})")
    for recipe in loaded.expanded_recipes():
        captioners = ", ".join(recipe.captioners) or "raw captions only"
        filters = ", ".join(step.filter for step in recipe.filters) or "none"
        click.echo(
            f"recipe {recipe.name}: {captioners}; shear {recipe.shear}; filters {filters}; mix {recipe.mix.strategy}; "
            f"seed {recipe.seed}"
        )
