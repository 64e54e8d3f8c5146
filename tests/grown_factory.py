"""A small factory whose source grows: each growth is new rows, a new shard, and both recipes measured again."""

import json
from pathlib import Path
from typing import Any

import yaml
from asked_factory import captioned, measured, write_factory
from small_factory import picture

from caploom.config.factory import Factory
from caploom.storage.store import Artifact

RECIPES = {"raw-only": {"captioners": []}, "sheared": {"captioners": "all", "shear": "first"}}


def write(folder: Path, **changes: Any) -> Path:
    return write_factory(folder, recipes=RECIPES, **changes)


def grow(path: Path, numbers: range) -> None:
    """New pictures with captions at the end of the source."""
    source = path.parent / "source"
    rows = json.loads((source / "captions.json").read_text())
    for number in numbers:
        picture(number).save(source / "images" / f"{number:04d}.png")
        rows.append({"image": f"{number:04d}.png", "caption": f"photo {number}"})
    (source / "captions.json").write_text(json.dumps(rows))


def run(path: Path, *recipes: str, noise: float = 1.0) -> Factory:
    """Caption what is new, and measure recipes."""
    factory = captioned(path)
    for recipe in recipes:
        measured(factory, recipe, noise=noise)
    return factory


def edit(path: Path, **changes: Any) -> Path:
    """Change keys of the YAML."""
    settings = yaml.safe_load(path.read_text())
    path.write_text(yaml.safe_dump({**settings, **changes}, sort_keys=False))
    return path


def metrics_of(factory: Factory, recipe: str) -> list[Artifact]:
    """Every measurement of a recipe, the oldest first."""
    found = factory.store.list("retrieval_metrics", recipe)
    return sorted(found, key=lambda each: (each.folder / "manifest.json").stat().st_mtime_ns)
