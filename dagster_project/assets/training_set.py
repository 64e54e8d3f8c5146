"""The `training_set` asset."""

from typing import Any

import dagster as dg

from caploom.common.progress import track
from caploom.config.factory_config import FactoryConfig
from caploom.questions.gallery_rows import training_gallery
from caploom.stages.training_set import TRAINING_SET as STAGE
from caploom.stages.training_set import merge_training_set
from dagster_project.assets.materialization import check_specs, gallery, result, user_errors
from dagster_project.assets.raw_pairs import RAW_PAIRS
from dagster_project.assets.settings import Part, settings_dependency
from dagster_project.assets.sheared_captions import SHEARED_CAPTIONS
from dagster_project.conditions import follow_new_captions
from dagster_project.freshness import freshness_of
from dagster_project.partitions import recipe_names, recipe_partitions
from dagster_project.resources.factory import FactoryResource
from dagster_project.tags import asset_owners, captioner_tags

TRAINING_SET = dg.AssetKey("training_set")


def training_set_asset(config: FactoryConfig) -> dg.AssetsDefinition:
    """The asset over all recipes."""

    @dg.asset(
        key=TRAINING_SET,
        deps=[
            SHEARED_CAPTIONS,
            dg.AssetDep(RAW_PAIRS, partition_mapping=dg.AllPartitionMapping()),
            settings_dependency(Part.MIX, recipe_names(config)),
        ],
        partitions_def=recipe_partitions(config),
        code_version=STAGE.code_version,
        check_specs=check_specs(TRAINING_SET, STAGE),
        automation_condition=follow_new_captions(),
        freshness_policy=freshness_of(config, "training_set"),
        group_name="training_data",
        owners=asset_owners(config),
        kinds={"parquet", "json"},
        tags=captioner_tags(config.captioners),
    )
    def training_set(context: dg.AssetExecutionContext, factory: FactoryResource) -> dg.MaterializeResult:
        """Raw and sheared captions joined by the image's identity, with the probability that training draws each."""
        with user_errors():
            graph = factory.graph(context)
            recipe = graph.recipe(context.partition_key)
            with track(f"training_set [{recipe.name}]", "captions") as bar:
                artifact = merge_training_set(graph, recipe, bar.part())
            checks = STAGE.checks.run(graph, artifact)
            pictures = gallery(training_gallery(artifact))
            filters = ", ".join(step.filter for step in recipe.filters) or "none"
            metadata: dict[str, Any] = {"gallery": pictures, "mix": recipe.mix.strategy, "filters": filters}
            metadata["duplicates"] = dg.MetadataValue.json(artifact.manifest.summary["duplicates"])
            return result(artifact, checks, metadata, recipe=recipe)

    return training_set
