"""A factory of three recipes, really run but for the trained models, whose evaluation captions want to be code."""

import json
from pathlib import Path

from asked_factory import captioned, measured, write_factory

from caploom.config.factory import Factory

CODE = "<script>document.title = 'owned'</script><img src=x onerror=\"document.title='owned'\"> | `x` number"
RECIPES = {
    "raw-only": {"captioners": []},
    "whole": {"captioners": "all"},
    "sheared": {"captioners": "all", "shear": "first"},
    "waiting": {"captioners": "all", "mix": {"raw_probability": 0.7}},
}
NOISE = {"raw-only": 3.0, "whole": 1.0, "sheared": 0.4}


def build(folder: Path) -> Factory:
    """Measured but for the last recipe; two seeds of each."""
    path = write_factory(folder, recipes=RECIPES, seeds=[0, 1], name="tried")
    held_out = folder / "held-out.json"
    rows = []
    for row in json.loads(held_out.read_text(encoding="utf-8")):
        number = row["image"].removesuffix(".png")
        named = f"<b>{number}.png"
        (folder / "held-out" / row["image"]).rename(folder / "held-out" / named)
        rows += [{"image": named, "caption": f"{CODE} {number}"}, {"image": named, "caption": f"another of {number}"}]
    held_out.write_text(json.dumps(rows), encoding="utf-8")
    factory = captioned(path)
    for recipe in factory.config.expanded_recipes():
        if recipe.base in NOISE:
            measured(factory, recipe.name, noise=NOISE[recipe.base] + 0.1 * recipe.seed)
    return factory
