"""The `captions/<captioner>` assets, one for each captioner of the YAML."""

import dagster as dg

from caploom.captioning.caption_shard import CODE_VERSION, caption_shard
from caploom.captioning.identity import captioner_fingerprint
from caploom.captioning.settings import CaptionerSettings
from caploom.config import FactoryConfig
from caploom.lineage.checks import ORPHAN_FREE, ROWS_ACCOUNTED, check_captions
from caploom.lineage.exhibits import shard_exhibits
from caploom.lineage.fingerprints import fingerprint
from caploom.progress import track
from dagster_project.assets.materialization import AssetEvents, check_specs, gallery, shard_events, user_errors
from dagster_project.assets.raw_pairs import RAW_PAIRS
from dagster_project.partitions import SHARDS
from dagster_project.pools import GPU_POOL
from dagster_project.resources.captioner_models import CaptionerModels
from dagster_project.resources.factory import FactoryResource


def captions_key(captioner: str) -> dg.AssetKey:
    """The key of a captioner's asset."""
    return dg.AssetKey(["captions", captioner])


def captions_assets(config: FactoryConfig) -> list[dg.AssetsDefinition]:
    """An asset for each captioner of the YAML."""
    return [_captions_asset(name, settings) for name, settings in config.captioners.items()]


def _captions_asset(captioner: str, settings: CaptionerSettings) -> dg.AssetsDefinition:
    key = captions_key(captioner)

    @dg.asset(
        key=key,
        deps=[RAW_PAIRS],
        partitions_def=SHARDS,
        backfill_policy=dg.BackfillPolicy.single_run(),
        pool=GPU_POOL,
        code_version=fingerprint([CODE_VERSION, captioner_fingerprint(settings)]),
        check_specs=check_specs(key, ROWS_ACCOUNTED, ORPHAN_FREE),
        group_name="captions",
        kinds={"huggingface", "parquet"},
        tags={"captioner": captioner},
        metadata={"model": settings.model, "prompt": settings.prompt},
        description=f"What {captioner} ({settings.model}) says of every image, whole: the shear comes later.",
    )
    def captions(
        context: dg.AssetExecutionContext, factory: FactoryResource, captioner_models: CaptionerModels
    ) -> AssetEvents:
        with user_errors():
            opened, shards = factory.open(context.run_id), context.partition_keys
            with track(f"captions/{captioner}", "images", parts=len(shards)) as bar:
                made = {
                    shard: caption_shard(opened, captioner, shard, lambda: captioner_models.load(settings), bar.part())
                    for shard in shards
                }
            checks = {shard: check_captions(opened, artifact) for shard, artifact in made.items()}
            everyone = list(opened.config.captioners)
            extra = {shard: {"gallery": gallery(shard_exhibits(opened, shard, everyone))} for shard in shards}
        yield from shard_events(context, made, checks, extra)

    return captions
