"""The shards as partitions, where the GPU hours are; other partitions are of the YAML, see `assets.layout`."""

import dagster as dg

SHARD = "shard"
SHARDS = dg.DynamicPartitionsDefinition(name=SHARD)
"""Added by the sensor or a headless run as the source grows."""

# Runs over several shards carry these tags, the same ones that the UI's "materialize a range" sets.
RANGE_START_TAG = "dagster/asset_partition_range_start"
RANGE_END_TAG = "dagster/asset_partition_range_end"


def shard_range_tags(first: str, last: str) -> dict[str, str]:
    """The tags of a run over the shards from `first` to `last`, in the order in which they were added."""
    return {RANGE_START_TAG: first, RANGE_END_TAG: last}
