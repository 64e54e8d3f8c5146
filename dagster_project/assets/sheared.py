"""The `sheared/<captioner>` assets: one captioner's captions by shear, shared by all recipes that have both."""

import dagster as dg

from caploom.common.progress import track
from caploom.report.plots import length_histogram
from caploom.stages import sheared as shear
from caploom.stages.raw_pairs import raw_lengths
from dagster_project.assets.dependencies import ByHand, FactoryAssets
from dagster_project.assets.materialization import check_specs, several, user_errors
from dagster_project.conditions import follow_new_captions
from dagster_project.markdown import picture
from dagster_project.resources.factory import FactoryResource
from dagster_project.tags import captioner_tags


def sheared_assets(assets: FactoryAssets) -> list[dg.AssetsDefinition]:
    """An asset for each captioner that a recipe has."""
    return [_sheared_asset(assets, captioner, key) for captioner, key in assets.keys(shear.SHEARED).items()]


def _sheared_asset(assets: FactoryAssets, captioner: str, key: dg.AssetKey) -> dg.AssetsDefinition:
    @assets.asset(
        shear.SHEARED,
        captioner,
        but=("raw_pairs",),  # whose lengths decide few shears; the captions follow them anyway
        check_specs=check_specs(key, shear.SHEARED_CAPTIONS),
        automation_condition=follow_new_captions(),
        group_name="sheared",
        kinds={"parquet"},
        description=f"What {captioner} said, shortened by each shear; recipes with the same shear share it.",
    )
    def sheared(context: dg.AssetExecutionContext, factory: FactoryResource) -> dg.MaterializeResult:
        with user_errors():
            graph, name = factory.graph(context), context.partition_key
            with track(f"sheared/{captioner} [{name}]", "tables") as bar:
                made = shear.shear_captioners(graph, name, [captioner], bar.part())
            lengths = shear.captioner_lengths(made, captioner)
            histogram = length_histogram(raw_lengths(graph), {captioner: lengths}, f"{captioner}: {name}")
            metadata = {"lengths": picture(histogram, "caption lengths"), "shards": len(made)}
            tags = {"shear": name, **captioner_tags([captioner])}
            return several(made, shear.check_sheared_tables(made), metadata, partition=name, tags=tags)

    return sheared


BY_HAND = ByHand(shear.SHEARED, sheared_assets)
