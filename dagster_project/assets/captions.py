"""The `captions/<captioner>` assets, one for each captioner of the YAML."""

from contextlib import AbstractContextManager

import dagster as dg
from pydantic import Field

from caploom.captioning.backend import Backend
from caploom.captioning.identity import captioner_fingerprint
from caploom.captioning.settings import CaptionerSettings, PromptedSettings
from caploom.common.executors import Executor, LocalExecutor, RayExecutor
from caploom.common.hashing import fingerprint
from caploom.common.progress import StageBar, track
from caploom.errors import CanaryError
from caploom.stages.captions import CAPTIONS, caption_shard
from caploom.stages.checks import BATCHED_EQUALS_SINGLE
from caploom.stages.graph import Graph
from caploom.stages.on_ray.captions import caption_shards_on_ray
from caploom.stages.retry_failures import ask_to_retry
from dagster_project.assets.captions_metadata import captions_metadata
from dagster_project.assets.dependencies import ByHand, FactoryAssets
from dagster_project.assets.materialization import AssetEvents, failed_check, shard_events, user_errors
from dagster_project.conditions import caption_new_shards
from dagster_project.pools import GPU_POOL
from dagster_project.ray_cluster import ray_of_the_run
from dagster_project.resources.captioner_models import CaptionerModels
from dagster_project.resources.factory import FactoryResource
from dagster_project.tags import captioner_tags


class CaptionsConfig(dg.Config):
    """What a launch of captions can ask for."""

    retry_failures: bool = Field(
        default=False, description="Redo the failed images of finished shards too, as `caploom retry` does."
    )


def captions_assets(assets: FactoryAssets) -> list[dg.AssetsDefinition]:
    """An asset for each captioner of the YAML."""
    return [_captions_asset(assets, name, settings) for name, settings in assets.config.captioners.items()]


def _captions_asset(assets: FactoryAssets, captioner: str, settings: CaptionerSettings) -> dg.AssetsDefinition:
    @assets.asset(
        CAPTIONS,
        captioner,
        pool=GPU_POOL if settings.on_gpu else None,
        code_version=fingerprint([CAPTIONS.code_version, captioner_fingerprint(settings)]),
        automation_condition=caption_new_shards(),
        group_name="captions",
        kinds={settings.kind, "parquet"},
        metadata=_definition_metadata(settings),
        description=f"What {captioner} ({settings.label}) says of every image, whole: the shear comes later.",
    )
    def captions(
        context: dg.AssetExecutionContext,
        config: CaptionsConfig,
        factory: FactoryResource,
        captioner_models: CaptionerModels,
    ) -> AssetEvents:
        with user_errors():
            opened, shards = factory.open(context.run.run_id), context.partition_keys
            for shard in shards if config.retry_failures else []:
                ask_to_retry(opened, captioner, shard)
            graph = Graph(opened)  # which plans what was just asked for

        def load() -> Backend:
            return captioner_models.load(settings, graph.store)

        # Captions that exist already are read where they lie.
        executor = graph.config.executor if settings.backend != "import" else LocalExecutor()
        try:
            with user_errors(but=CanaryError), _bar(context, captioner, executor) as bar:
                if isinstance(executor, RayExecutor):
                    with ray_of_the_run(executor, context):
                        made = caption_shards_on_ray(graph, captioner, shards, bar.part())
                else:
                    made = {shard: caption_shard(graph, captioner, shard, load, bar.part()) for shard in shards}
        except CanaryError as error:
            yield failed_check(context.asset_key, BATCHED_EQUALS_SINGLE, str(error))
            raise dg.Failure(description=str(error), allow_retries=False) from None
        with user_errors():
            checks = {shard: CAPTIONS.checks.run(graph, artifact) for shard, artifact in made.items()}
            extra = {shard: captions_metadata(graph, captioner, artifact) for shard, artifact in made.items()}
        yield from shard_events(context, made, checks, extra, captioner_tags([captioner]))

    return captions


def _bar(context: dg.AssetExecutionContext, captioner: str, executor: Executor) -> AbstractContextManager[StageBar]:
    parts = 1 if isinstance(executor, RayExecutor) else len(context.partition_keys)  # a cluster has all of them at once
    return track(f"captions/{captioner}", "images", parts=parts, log=context.log.info)


def _definition_metadata(settings: CaptionerSettings) -> dict[str, str]:
    prompt = {"prompt": settings.prompt} if isinstance(settings, PromptedSettings) else {}
    return {"backend": settings.backend, "model": settings.label, **prompt}


BY_HAND = ByHand(CAPTIONS, captions_assets)
