"""Tags and owners by which the UI finds what was made with a captioner, a shear or a recipe."""

from collections.abc import Iterable

from caploom.config.factory_config import FactoryConfig
from caploom.config.recipes import Recipe

WHY_TAG = "caploom/why"
"""Says of a run that nobody launched by hand what it was launched for."""

_RETRY_TAG = "dagster/retry_on_asset_or_op_failure"

_MOST = 63  # characters, of the part of a tag's key behind the slash


def asset_owners(config: FactoryConfig) -> list[str]:
    """Who answers for the factory's assets: whom the YAML names, else a team of the factory's name."""
    return list(config.owners) or [f"team:{config.name}"]


def captioner_tags(captioners: Iterable[str]) -> dict[str, str]:
    """One tag a captioner, since a key has one value: `captioner/llava-1.5`."""
    return {f"captioner/{captioner[:_MOST]}": "" for captioner in captioners}


def recipe_tags(recipe: Recipe) -> dict[str, str]:
    """The tags of what a recipe made: its own name, its shear, its mix and each of its captioners."""
    return {
        "recipe": recipe.name[:_MOST],
        "shear": recipe.shear[:_MOST],
        "mix": recipe.mix.strategy,
        "seed": str(recipe.seed),
        **captioner_tags(recipe.captioners),
    }


def automatic_tags(why: str) -> dict[str, str]:
    """The tags of a run that nobody launched by hand: why, and that it is launched again whatever failed it.

    Nobody sits beside it; and when one step's process is killed, Dagster takes that for a failure of the step.
    """
    return {WHY_TAG: why, _RETRY_TAG: "true"}
