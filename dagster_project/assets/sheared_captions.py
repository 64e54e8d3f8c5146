"""The `sheared_captions` asset."""

import dagster as dg

from caploom.common.progress import track
from caploom.questions.shear_examples import examples_markdown, shear_markdown
from caploom.report.plots import length_histogram
from caploom.stages import sheared as shear
from caploom.stages.raw_pairs import raw_lengths
from dagster_project.assets.dependencies import ByHand, FactoryAssets
from dagster_project.assets.materialization import result, user_errors
from dagster_project.conditions import follow_new_captions
from dagster_project.markdown import picture
from dagster_project.resources.factory import FactoryResource


def sheared_captions_assets(assets: FactoryAssets) -> list[dg.AssetsDefinition]:
    """The asset over all recipes."""

    @assets.asset(
        shear.SHEARED_CAPTIONS,
        automation_condition=follow_new_captions(),
        group_name="training_data",
        kinds={"parquet"},
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

    return [sheared_captions]


BY_HAND = ByHand(shear.SHEARED_CAPTIONS, sheared_captions_assets)
