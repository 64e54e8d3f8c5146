"""`caploom presets`: the ready-made captioners."""

import click

from caploom.commands.user_errors import user_errors


@click.command()
@click.argument("name", required=False)
@user_errors
def presets(name: str | None) -> None:
    """List the ready-made captioners, or show one as YAML, to use or to copy."""
    import yaml

    from caploom.captioning.presets import preset_named
    from caploom.captioning.presets import presets as all_presets

    if name is not None:
        click.echo(yaml.safe_dump({name: dict(preset_named(name))}, sort_keys=False, allow_unicode=True), nl=False)
        return
    for each, preset in all_presets().items():
        memory = f"{preset['memory_gb']:g} GB" if "memory_gb" in preset else "-"
        click.echo(f"{each:22} {memory:>7}  {preset.get('model', '(your own folder)'):45} {preset['about'].strip()}")
