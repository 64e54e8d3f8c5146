"""The `sheared_captions` asset."""

import dagster as dg

from caploom.common.progress import track
from caploom.config.factory_config import FactoryConfig
from caploom.questions.shear_examples import examples_markdown, shear_markdown
from caploom.report.plots import length_histogram
from caploom.stages import sheared as shear
from caploom.stages.raw_pairs import raw_lengths
from dagster_project.assets.materialization import check_specs, picture, result, user_errors
from dagster_project.assets.raw_pairs import RAW_PAIRS
from dagster_project.assets.settings import Part, settings_dependency
from dagster_project.assets.sheared import sheared_key, shears_of
from dagster_project.conditions import follow_new_captions
from dagster_project.freshness import freshness_of
from dagster_project.partitions import recipe_names, recipe_partitions
from dagster_project.resources.factory import FactoryResource
from dagster_project.tags import asset_owners, captioner_tags

SHEARED_CAPTIONS = dg.AssetKey("sheared_captions")


def sheared_captions_asset(config: FactoryConfig) -> dg.AssetsDefinition:
    """The asset over all recipes."""

    @dg.asset(
        key=SHEARED_CAPTIONS,
        deps=[
            *(
                dg.AssetDep(sheared_key(captioner), partition_mapping=dg.StaticPartitionMapping(shears))
                for captioner in config.captioners
                if (shears := shears_of(config, captioner))
            ),
            dg.AssetDep(RAW_PAIRS, partition_mapping=dg.AllPartitionMapping()),
            settings_dependency(Part.CAPTIONS, recipe_names(config)),
        ],
        partitions_def=recipe_partitions(config),
        code_version=shear.SHEARED_CAPTIONS.code_version,
        check_specs=check_specs(SHEARED_CAPTIONS, shear.SHEARED_CAPTIONS),
        automation_condition=follow_new_captions(),
        freshness_policy=freshness_of(config, "sheared_captions"),
        group_name="training_data",
        owners=asset_owners(config),
        kinds={"parquet"},
        tags=captioner_tags(config.captioners),
    )
    def sheared_captions(context: dg.AssetExecutionContext, factory: FactoryResource) -> dg.MaterializeResult:
        """The recipe's captions, shortened by its shear; each is a span of the text that its captioner said."""
        with user_errors():
            graph = factory.graph(context)
            recipe = graph.recipe(context.partition_key)
            with track(f"sheared_captions [{recipe.name}]", "tables") as bar:
                artifact = shear.shear_recipe(graph, recipe, bar.part())
            tables = shear.tables_of(graph, artifact)
            lengths = {name: shear.captioner_lengths(tables, name) for name in recipe.captioners}
            histogram = length_histogram(raw_lengths(graph), lengths, f"Caption lengths: {recipe.name}")
            plot = picture(histogram, "caption lengths")
            checks = shear.SHEARED_CAPTIONS.checks.run(graph, artifact)
            metadata = {
                "lengths": plot,
                "shear": recipe.shear,
                "captioners": dg.MetadataValue.md(shear_markdown(artifact)),
                "examples": dg.MetadataValue.md(examples_markdown(graph.factory, artifact)),
            }
            return result(artifact, checks, metadata, recipe=recipe)

    return sheared_captions
