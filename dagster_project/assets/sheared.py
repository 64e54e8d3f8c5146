"""The `sheared/<captioner>` assets: one captioner's captions by shear, shared by all recipes that have both."""

import dagster as dg

from caploom.common.progress import track
from caploom.config.factory_config import FactoryConfig
from caploom.report.plots import length_histogram
from caploom.stages import sheared as shear
from caploom.stages.raw_pairs import raw_lengths
from dagster_project.assets.captions import captions_key
from dagster_project.assets.materialization import check_specs, picture, several, user_errors
from dagster_project.assets.settings import Part, settings_dependency
from dagster_project.conditions import follow_new_captions
from dagster_project.freshness import freshness_of
from dagster_project.resources.factory import FactoryResource
from dagster_project.tags import asset_owners, captioner_tags


def sheared_key(captioner: str) -> dg.AssetKey:
    """The key of a captioner's asset."""
    return dg.AssetKey(["sheared", captioner])


def shears_of(config: FactoryConfig, captioner: str) -> dict[str, list[str]]:
    """The shears that recipes apply to a captioner's captions, each with the names of those recipes."""
    found: dict[str, list[str]] = {}
    for recipe in config.expanded_recipes():
        if captioner in recipe.captioners:
            found.setdefault(recipe.shear, []).append(recipe.name)
    return found


def sheared_assets(config: FactoryConfig) -> list[dg.AssetsDefinition]:
    """An asset for each captioner that a recipe has."""
    shears = {captioner: list(shears_of(config, captioner)) for captioner in config.captioners}
    return [_sheared_asset(config, captioner, names) for captioner, names in shears.items() if names]


def _sheared_asset(config: FactoryConfig, captioner: str, shears: list[str]) -> dg.AssetsDefinition:
    key = sheared_key(captioner)

    @dg.asset(
        key=key,
        deps=[
            dg.AssetDep(captions_key(captioner), partition_mapping=dg.AllPartitionMapping()),
            settings_dependency(Part.SHEAR, shears),
        ],
        partitions_def=dg.StaticPartitionsDefinition(shears),
        code_version=shear.SHEARED.code_version,
        check_specs=check_specs(key, shear.SHEARED_CAPTIONS),
        automation_condition=follow_new_captions(),
        freshness_policy=freshness_of(config, "sheared"),
        group_name="sheared",
        owners=asset_owners(config),
        kinds={"parquet"},
        tags={"captioner": captioner, **captioner_tags([captioner])},
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
