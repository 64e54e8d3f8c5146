"""The two kinds of partition: shards, where the GPU hours are, and recipes, where the experiments are."""

import dagster as dg

from caploom.config.factory_config import FactoryConfig

SHARD = "shard"
SHARDS = dg.DynamicPartitionsDefinition(name=SHARD)
"""Added by the sensor or a headless run as the source grows."""

# Runs over several shards carry these tags, the same ones that the UI's "materialize a range" sets.
RANGE_START_TAG = "dagster/asset_partition_range_start"
RANGE_END_TAG = "dagster/asset_partition_range_end"


def recipe_partitions(config: FactoryConfig) -> dg.StaticPartitionsDefinition:
    """One partition per recipe and seed of the YAML."""
    return dg.StaticPartitionsDefinition(recipe_names(config))


def recipe_names(config: FactoryConfig) -> list[str]:
    """The keys of those partitions, in the YAML's order."""
    return [recipe.name for recipe in config.expanded_recipes()]


def shard_range_tags(first: str, last: str) -> dict[str, str]:
    """The tags of a run over the shards from `first` to `last`, in the order in which they were added."""
    return {RANGE_START_TAG: first, RANGE_END_TAG: last}
