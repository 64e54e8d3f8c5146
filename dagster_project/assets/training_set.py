"""The `training_set` asset."""

import dagster as dg

from caploom.config import FactoryConfig
from caploom.lineage.checks import ORPHAN_FREE, ROWS_ACCOUNTED, check_training_set
from caploom.lineage.exhibits import training_exhibits
from caploom.lineage.fingerprints import fingerprint
from caploom.progress import track
from caploom.readers.ingest import ingested_shards
from caploom.training_set import merge
from caploom.training_set.filters import filters_identity
from dagster_project.assets.materialization import check_specs, gallery, result, user_errors
from dagster_project.assets.raw_pairs import RAW_PAIRS
from dagster_project.assets.sheared_captions import SHEARED_CAPTIONS
from dagster_project.partitions import recipe_partitions
from dagster_project.resources.factory import FactoryResource

TRAINING_SET = dg.AssetKey("training_set")


def training_set_asset(config: FactoryConfig) -> dg.AssetsDefinition:
    """The asset over all recipes."""
    configured = {
        recipe.name: [recipe.mix.model_dump(mode="json"), filters_identity(recipe.filters)]
        for recipe in config.expanded_recipes()
    }

    @dg.asset(
        key=TRAINING_SET,
        deps=[SHEARED_CAPTIONS, dg.AssetDep(RAW_PAIRS, partition_mapping=dg.AllPartitionMapping())],
        partitions_def=recipe_partitions(config),
        code_version=fingerprint([merge.CODE_VERSION, configured, config.training_json]),
        check_specs=check_specs(TRAINING_SET, ROWS_ACCOUNTED, ORPHAN_FREE),
        group_name="training_data",
        kinds={"parquet", "json"},
    )
    def training_set(context: dg.AssetExecutionContext, factory: FactoryResource) -> dg.MaterializeResult:
        """Raw and sheared captions joined by the image's identity, with the probability that training draws each."""
        with user_errors():
            opened = factory.open(context.run.run_id)
            recipe = opened.config.recipe(context.partition_key)
            with track(f"training_set [{recipe.name}]", "captions") as bar:
                artifact = merge.merge_training_set(opened, recipe, bar.part())
            checks = check_training_set(opened, artifact, ingested_shards(opened))
            exhibits = gallery(training_exhibits(artifact))
            filters = ", ".join(step.filter for step in recipe.filters) or "none"
            metadata = {"gallery": exhibits, "mix": recipe.mix.strategy, "filters": filters}
            return result(artifact, checks, metadata, recipe=recipe.name)

    return training_set
