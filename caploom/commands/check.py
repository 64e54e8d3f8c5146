"""`caploom check`: whether a YAML is valid, what it would make, and whether what it names is there."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from caploom.commands.user_errors import factory_command

if TYPE_CHECKING:
    from caploom.config.factory_config import FactoryConfig
    from caploom.questions.check_sources import SourcesCheck


@factory_command
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def check(config: Path, as_json: bool) -> None:
    """Validate a factory's YAML, list what it would make, and look whether what it names is there (else 1)."""
    from caploom.config.factory_config import load_config
    from caploom.questions.check_sources import check_sources

    loaded = load_config(config)
    found = check_sources(loaded)
    click.echo(json.dumps(_as_dict(loaded, found), indent=2) if as_json else "\n".join(_lines(config, loaded, found)))
    if found.missing:
        sys.exit(1)


def _lines(path: Path, config: "FactoryConfig", found: "SourcesCheck") -> list[str]:
    from caploom.captioning.identity import captioner_fingerprint
    from caploom.common.text import counted, printable

    lines = [f"{path}: the factory {config.name} is well formed; its artifacts are in {config.store}."]
    for name, captioner in config.captioners.items():
        lines.append(f"captioner {name}: {captioner.label} ({captioner_fingerprint(captioner)})")
    for recipe in config.expanded_recipes():
        captioners = ", ".join(recipe.captioners) or "raw captions only"
        filters = ", ".join(step.filter for step in recipe.filters) or "none"
        lines.append(
            f"recipe {recipe.name}: {captioners}; shear {recipe.shear}; filters {filters}; mix {recipe.mix.strategy}; "
            f"seed {recipe.seed}"
        )
    for word, findings in (("there", found.there), ("not asked", found.not_asked), ("not there", found.missing)):
        lines += [printable(f"{word}: {each.key}: {each.sentence}") for each in findings]
    missing = len(found.missing)
    lines.append(
        f"{counted(missing, 'things')} that it names {'is' if missing == 1 else 'are'} not there."
        if missing
        else "Nothing that it names on this machine is missing."
    )
    return lines


def _as_dict(config: "FactoryConfig", found: "SourcesCheck") -> dict[str, Any]:
    from dataclasses import asdict

    from caploom.captioning.identity import captioner_fingerprint

    return {
        "name": config.name,
        "store": str(config.store),
        "captioners": {
            name: {"label": captioner.label, "fingerprint": captioner_fingerprint(captioner)}
            for name, captioner in config.captioners.items()
        },
        "recipes": [
            {
                "name": recipe.name,
                "captioners": list(recipe.captioners),
                "shear": recipe.shear,
                "filters": [step.filter for step in recipe.filters],
                "mix": recipe.mix.strategy,
                "seed": recipe.seed,
            }
            for recipe in config.expanded_recipes()
        ],
        **asdict(found),
    }
