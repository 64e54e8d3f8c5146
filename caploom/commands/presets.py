"""`caploom presets`: the ready-made captioners."""

import json

import click

from caploom.commands.user_errors import user_errors


@click.command()
@click.argument("name", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print JSON: a mapping of names to captioners.")
@user_errors
def presets(name: str | None, as_json: bool) -> None:
    """List the ready-made captioners, or show one as YAML, to use or to copy."""
    import yaml

    from caploom.captioning.presets import preset_named
    from caploom.captioning.presets import presets as all_presets

    if as_json:
        chosen = all_presets() if name is None else {name: preset_named(name)}
        click.echo(json.dumps({each: dict(preset) for each, preset in chosen.items()}, indent=2, ensure_ascii=False))
        return
    if name is not None:
        click.echo(yaml.safe_dump({name: dict(preset_named(name))}, sort_keys=False, allow_unicode=True), nl=False)
        return
    for each, preset in all_presets().items():
        memory = f"{preset['memory_gb']:g} GB" if "memory_gb" in preset else "-"
        click.echo(f"{each:22} {memory:>7}  {preset.get('model', '(your own folder)'):45} {preset['about'].strip()}")
