"""The `settings` asset: what the YAML says of each recipe's stages, so that an edit makes stale what it touches alone.

A code version belongs to a whole asset: editing one recipe's mix would turn the training sets of all recipes stale. So
each stage of a recipe depends on a partition of this external asset, whose data version is the hash of that piece of
the YAML. It is observed when a run starts and by a sensor while the UI is open. See docs/adr/0012.
"""

from typing import Any

import dagster as dg

from caploom.common.hashing import fingerprint
from caploom.config.factory import Factory
from caploom.config.factory_config import FactoryConfig
from caploom.stages.graph import Graph
from caploom.stages.registry import stages
from caploom.stages.stage import Piece, Stage
from dagster_project.layout import RECIPE, key_in, partition_axis, partition_names, shown_in

SETTINGS = dg.AssetKey("settings")
DATA_VERSION_TAG = "dagster/data_version"


def settings_asset(config: FactoryConfig) -> dg.AssetSpec:
    """The asset; nothing makes it but an editor."""
    names = [_name(piece, name) for stage, piece in _pieces(config) for name in partition_names(config, stage)]
    return dg.AssetSpec(
        SETTINGS,
        partitions_def=dg.StaticPartitionsDefinition(names),
        group_name="settings",
        kinds={"yaml"},
        description="What the YAML says of each shear and of each recipe's captions, mix, trainer and evaluation.",
    )


def settings_dependency(stage: Stage, names: list[str]) -> list[dg.AssetDep]:
    """That the partitions of these names depend each on its own piece; nothing where the YAML says nothing of them."""
    piece = piece_of(stage)
    if piece is None:
        return []
    mapping = dg.StaticPartitionMapping({_name(piece, name): name for name in names})
    return [dg.AssetDep(SETTINGS, partition_mapping=mapping)]


def settings_parts(factory: Factory) -> dict[str, Any]:
    """Every piece of the YAML by its partition key, as JSON values."""
    graph = Graph(factory)
    return {
        _name(piece, name): _says(graph, stage, piece, name)
        for stage, piece in _pieces(graph.config)
        for name in partition_names(graph.config, stage)
    }


def observe_settings(instance: dg.DagsterInstance, factory: Factory) -> list[str]:
    """Tell Dagster of every piece that is not as it was last observed; returns the partition keys of those."""
    known = instance.event_log_storage.get_latest_tags_by_partition(
        SETTINGS, dg.DagsterEventType.ASSET_OBSERVATION, [DATA_VERSION_TAG]
    )
    changed = []
    for key, piece in settings_parts(factory).items():
        version = fingerprint(piece)
        if known.get(key, {}).get(DATA_VERSION_TAG) != version:
            changed.append(key)
            instance.report_runless_asset_event(
                dg.AssetObservation(
                    asset_key=SETTINGS,
                    partition=key,
                    tags={DATA_VERSION_TAG: version},
                    metadata={"settings": dg.MetadataValue.json(piece)},
                )
            )
    return changed


def piece_of(stage: Stage) -> Piece | None:
    """What of the YAML a step's assets depend on; of one that has a recipe for its key, its settings unless it says."""
    named = Piece(stage.kind) if stage.axes == (RECIPE,) and shown_in(stage) == stage.kind else None
    return stage.piece or named


def _pieces(config: FactoryConfig) -> list[tuple[Stage, Piece]]:
    found = ((stage, piece_of(stage)) for stage in stages() if stage.is_in(config))
    return [(stage, piece) for stage, piece in found if piece is not None]


def _name(piece: Piece, partition: str) -> str:
    return f"{piece.name}.{partition}"


def _says(graph: Graph, stage: Stage, piece: Piece, partition: str) -> Any:
    axis = partition_axis(stage)
    key = key_in(stage, {axis: partition} if axis else {})
    if axis == RECIPE and not stage.recipes(graph.recipe(partition)):
        return {}  # the recipe ends before this step
    if piece.says is not None:
        return piece.says(graph, key)
    return stage.settings(graph, key) if key in graph.keys(stage.kind) else {}
