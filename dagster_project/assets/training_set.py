"""The `training_set` asset."""

from typing import Any

import dagster as dg

from caploom.common.progress import track
from caploom.questions.gallery_rows import training_gallery
from caploom.stages.moves import moves_of
from caploom.stages.training_set import TRAINING_SET, merge_training_set
from dagster_project.assets.dependencies import ByHand, FactoryAssets
from dagster_project.assets.materialization import result, user_errors
from dagster_project.conditions import follow_new_captions
from dagster_project.markdown import gallery
from dagster_project.resources.factory import FactoryResource


def training_set_assets(assets: FactoryAssets) -> list[dg.AssetsDefinition]:
    """The asset over all recipes."""

    @assets.asset(
        TRAINING_SET,
        automation_condition=follow_new_captions(),
        group_name="training_data",
        kinds={"parquet", "json"},
    )
    def training_set(context: dg.AssetExecutionContext, factory: FactoryResource) -> dg.MaterializeResult:
        """Raw and sheared captions joined by the image's identity, with the probability that training draws each."""
        with user_errors():
            graph = factory.graph(context)
            recipe = graph.recipe(context.partition_key)
            with track(f"training_set [{recipe.name}]", "captions") as bar:
                artifact = merge_training_set(graph, recipe, bar.part())
            checks = TRAINING_SET.checks.run(graph, artifact)
            pictures = gallery(training_gallery(artifact, moves=moves_of(graph)))
            filters = ", ".join(step.filter for step in recipe.filters) or "none"
            metadata: dict[str, Any] = {"gallery": pictures, "mix": recipe.mix.strategy, "filters": filters}
            metadata["duplicates"] = dg.MetadataValue.json(artifact.manifest.summary["duplicates"])
            return result(artifact, checks, metadata, recipe=recipe)

    return [training_set]


BY_HAND = ByHand(TRAINING_SET, training_set_assets)
