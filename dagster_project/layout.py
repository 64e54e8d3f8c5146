"""How a step of the factory is laid out in Dagster: whether it is an asset, under which keys, in which partitions."""

from collections.abc import Mapping

import dagster as dg

from caploom.config.factory_config import FactoryConfig
from caploom.stages.registry import STAGES
from caploom.stages.stage import Key, Stage
from dagster_project.partitions import SHARD, SHARDS

CAPTIONER, SHEAR, RECIPE = "captioner", "shear", "recipe"
"""Axes of a step that its layout follows, beside the shard."""


def shown_in(stage: Stage) -> str | None:
    """The kind whose assets people materialize to have an artifact; None of one that whoever needs it makes."""
    if stage.hidden or stage.on_demand:
        return None
    name = asset_key(stage).path[0]
    return name if name in STAGES else stage.kind


def asset_key(stage: Stage, captioner: str = "") -> dg.AssetKey:
    """The key of a step's asset, of one captioner where its axes say so."""
    asset, _ = stage.asset_of(key_in(stage, {CAPTIONER: captioner}))
    return dg.AssetKey(asset.rstrip("/").split("/"))


def key_in(stage: Stage, values: Mapping[str, str]) -> Key:
    """The key that has these values of its axes, and none of the others."""
    return tuple(values.get(axis, "") for axis in stage.axes)


def partition_axis(stage: Stage) -> str | None:
    """What the partitions of a step's assets are; None where an asset has none.

    Artifacts that differ in other axes besides are one partition together: a captioner's captions by one shear.
    """
    if {*stage.axes} in ({SHARD}, {CAPTIONER, SHARD}):
        return SHARD
    return next((axis for axis in (RECIPE, SHEAR) if axis in stage.axes), None)


def partition_names(config: FactoryConfig, stage: Stage, captioner: str = "") -> list[str]:
    """The partitions that the YAML tells, of one captioner or of all: recipes, or shears. Shards are data."""
    recipes = config.expanded_recipes()
    if partition_axis(stage) == SHEAR:
        return list(shears_of(config, captioner)) if captioner else sorted({recipe.shear for recipe in recipes})
    return [recipe.name for recipe in recipes] if partition_axis(stage) == RECIPE else []


def partitions_of(config: FactoryConfig, stage: Stage, captioner: str = "") -> dg.PartitionsDefinition | None:
    """The partitions of a step's asset, of one captioner where its axes say so."""
    axis = partition_axis(stage)
    if axis is None:
        return None
    return SHARDS if axis == SHARD else dg.StaticPartitionsDefinition(partition_names(config, stage, captioner))


def shears_of(config: FactoryConfig, captioner: str) -> dict[str, list[str]]:
    """The shears that recipes apply to a captioner's captions, each with the names of those recipes."""
    found: dict[str, list[str]] = {}
    for recipe in config.expanded_recipes():
        if captioner in recipe.captioners:
            found.setdefault(recipe.shear, []).append(recipe.name)
    return found
