"""Tags and owners by which the UI finds everything made with a captioner, a shear or a recipe."""

from collections.abc import Iterable

from caploom.config.factory_config import FactoryConfig
from caploom.config.recipes import Recipe

WHY_TAG = "caploom/why"
"""The tag with the reason for a run that was launched automatically."""

_RETRY_TAG = "dagster/retry_on_asset_or_op_failure"

_MOST = 63  # characters of the part of a tag's key after the slash


def asset_owners(config: FactoryConfig) -> list[str]:
    """The owners of the factory's assets: the YAML's, or else a team with the factory's name."""
    return list(config.owners) or [f"team:{config.name}"]


def captioner_tags(captioners: Iterable[str]) -> dict[str, str]:
    """One tag per captioner, since a key has one value: `captioner/llava-1.5`."""
    return {f"captioner/{captioner[:_MOST]}": "" for captioner in captioners}


def recipe_tags(recipe: Recipe) -> dict[str, str]:
    """The tags of a recipe's assets: its name, its shear, its mix and each of its captioners."""
    return {
        "recipe": recipe.name[:_MOST],
        "shear": recipe.shear[:_MOST],
        "mix": recipe.mix.strategy,
        "seed": str(recipe.seed),
        **captioner_tags(recipe.captioners),
    }


def automatic_tags(why: str) -> dict[str, str]:
    """The tags of an automatically launched run: its reason, and that it is retried after any failure.

    Nobody watches it; and when one step's process is killed, Dagster takes that for a failure of the step.
    """
    return {WHY_TAG: why, _RETRY_TAG: "true"}
