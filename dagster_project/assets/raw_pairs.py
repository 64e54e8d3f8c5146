"""The `raw_pairs` asset."""

import dagster as dg

from caploom.common.hashing import fingerprint
from caploom.common.progress import track
from caploom.config.factory_config import FactoryConfig
from caploom.questions.gallery_rows import shard_gallery
from caploom.stages.raw_pairs import RAW_PAIRS as STAGE
from caploom.stages.raw_pairs import ingest_shard
from dagster_project.assets.materialization import AssetEvents, check_specs, gallery, shard_events, user_errors
from dagster_project.freshness import freshness_of
from dagster_project.partitions import SHARDS
from dagster_project.resources.factory import FactoryResource
from dagster_project.tags import asset_owners

RAW_PAIRS = dg.AssetKey("raw_pairs")


def raw_pairs_asset(config: FactoryConfig) -> dg.AssetsDefinition:
    """The asset over the configured source."""

    @dg.asset(
        key=RAW_PAIRS,
        partitions_def=SHARDS,
        backfill_policy=dg.BackfillPolicy.single_run(),
        code_version=fingerprint([STAGE.code_version, config.pairs.fingerprinted() if config.pairs else None]),
        check_specs=check_specs(RAW_PAIRS, STAGE),
        freshness_policy=freshness_of(config, "raw_pairs"),
        group_name="pairs",
        owners=asset_owners(config),
        kinds={"parquet"},
    )
    def raw_pairs(context: dg.AssetExecutionContext, factory: FactoryResource) -> AssetEvents:
        """Images that really decode, each with its raw caption; a bad row is a failure with its reason."""
        with user_errors():
            graph, shards = factory.graph(context), context.partition_keys
            with track("raw_pairs", "rows", parts=len(shards)) as bar:
                made = {shard: ingest_shard(graph, shard, bar.part()) for shard in shards}
            checks = {shard: STAGE.checks.run(graph, artifact) for shard, artifact in made.items()}
            extra = {shard: {"gallery": gallery(shard_gallery(graph, shard, []))} for shard in shards}
        yield from shard_events(context, made, checks, extra)

    return raw_pairs
