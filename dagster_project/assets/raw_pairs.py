"""The `raw_pairs` asset."""

import dagster as dg

from caploom.common.hashing import fingerprint
from caploom.common.progress import track
from caploom.questions.gallery_rows import shard_gallery
from caploom.stages.raw_pairs import RAW_PAIRS, ingest_shard
from dagster_project.assets.dependencies import ByHand, FactoryAssets
from dagster_project.assets.materialization import AssetEvents, shard_events, user_errors
from dagster_project.markdown import gallery
from dagster_project.resources.factory import FactoryResource


def raw_pairs_assets(assets: FactoryAssets) -> list[dg.AssetsDefinition]:
    """The asset over the configured source."""
    source = assets.config.pairs.fingerprinted() if assets.config.pairs else None

    @assets.asset(
        RAW_PAIRS, code_version=fingerprint([RAW_PAIRS.code_version, source]), group_name="pairs", kinds={"parquet"}
    )
    def raw_pairs(context: dg.AssetExecutionContext, factory: FactoryResource) -> AssetEvents:
        """Images that really decode, each with its raw caption; a bad row is a failure with its reason."""
        with user_errors():
            graph, shards = factory.graph(context), context.partition_keys
            with track("raw_pairs", "rows", parts=len(shards)) as bar:
                made = {shard: ingest_shard(graph, shard, bar.part()) for shard in shards}
            checks = {shard: RAW_PAIRS.checks.run(graph, artifact) for shard, artifact in made.items()}
            extra = {shard: {"gallery": gallery(shard_gallery(graph, shard, []))} for shard in shards}
        yield from shard_events(context, made, checks, extra)

    return [raw_pairs]


BY_HAND = ByHand(RAW_PAIRS, raw_pairs_assets)
