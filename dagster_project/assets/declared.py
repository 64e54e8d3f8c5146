"""The assets of the steps that have none written by hand: everything about them follows from the step's declaration."""

from collections import defaultdict
from collections.abc import Mapping
from inspect import getdoc

import dagster as dg

from caploom.common.progress import track
from caploom.stages.graph import Graph
from caploom.stages.stage import Ref, Stage, Tools
from caploom.storage.store import Artifact
from dagster_project.assets.dependencies import FactoryAssets
from dagster_project.assets.materialization import AssetEvents, result, several, shard_events, user_errors
from dagster_project.layout import CAPTIONER, RECIPE, partition_axis
from dagster_project.partitions import SHARD
from dagster_project.resources.factory import FactoryResource
from dagster_project.tags import captioner_tags, recipe_tags


def declared_assets(assets: FactoryAssets) -> list[dg.AssetsDefinition]:
    """An asset of each such step, or one for each captioner where its axes say so."""
    return [_asset(assets, stage, captioner) for stage in assets.declared for captioner in assets.keys(stage)]


def _asset(assets: FactoryAssets, stage: Stage, captioner: str) -> dg.AssetsDefinition:
    @assets.asset(stage, captioner, group_name=stage.kind, description=getdoc(stage.build))
    def declared(context: dg.AssetExecutionContext, factory: FactoryResource) -> AssetEvents:
        with user_errors():
            graph = factory.graph(context)
            partitions = context.partition_keys if partition_axis(stage) else [""]
            made = _make(graph, stage, captioner, partitions, context.asset_key.to_user_string())
            yield from _events(context, graph, stage, captioner, made)

    return declared


def _make(graph: Graph, stage: Stage, captioner: str, partitions: list[str], title: str) -> dict[str, list[Artifact]]:
    """By partition, the artifacts of the step, of one captioner if it has several."""
    axis, refs = partition_axis(stage), defaultdict[str, list[Ref]](list)
    for key in graph.keys(stage.kind):
        values = dict(zip(stage.axes, key, strict=True))
        if values.get(CAPTIONER, captioner) == captioner:
            refs[values[axis] if axis else ""].append(Ref(stage.kind, key))
    with track(title, stage.unit, parts=sum(len(refs[each]) for each in partitions)) as bar:
        return {each: [graph.make(ref, Tools(progress=bar.part())) for ref in refs[each]] for each in partitions}


def _events(
    context: dg.AssetExecutionContext,
    graph: Graph,
    stage: Stage,
    captioner: str,
    made: Mapping[str, list[Artifact]],
) -> AssetEvents:
    checks = {
        partition: [outcome for artifact in artifacts for outcome in stage.checks.run(graph, artifact)]
        for partition, artifacts in made.items()
    }
    recipe = graph.recipe(next(iter(made))) if partition_axis(stage) == RECIPE else None
    tags = (recipe_tags(recipe) if recipe else {}) | captioner_tags([captioner] if captioner else [])
    if partition_axis(stage) == SHARD:
        of_shards = {shard: artifact for shard, artifacts in made.items() for artifact in artifacts}
        yield from shard_events(context, of_shards, checks, {}, tags)
        return
    ((partition, artifacts),) = made.items()
    if len(artifacts) == 1:
        yield result(artifacts[0], checks[partition], recipe=recipe, tags=tags)
    else:
        yield several(artifacts, checks[partition], {}, partition=partition, tags=tags)
