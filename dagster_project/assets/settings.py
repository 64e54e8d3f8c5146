"""The `settings` asset: what the YAML says of each recipe's stages, so that an edit makes stale what it touches alone.

A code version belongs to a whole asset: editing one recipe's mix would turn the training sets of all recipes stale. So
each stage of a recipe depends on a partition of this external asset, whose data version is the hash of that piece of
the YAML. It is observed when a run starts and by a sensor while the UI is open. See docs/adr/0012.
"""

from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Any

import dagster as dg

from caploom.common.hashing import fingerprint
from caploom.config.factory_config import FactoryConfig
from caploom.config.recipes import Recipe
from caploom.training.identity import trainer_identity
from caploom.training_set.filters import filters_identity

SETTINGS = dg.AssetKey("settings")
DATA_VERSION_TAG = "dagster/data_version"


class Part(StrEnum):
    """A piece of the YAML that one stage depends on."""

    SHEAR = "shear"  # of a shear's name; the others are of a recipe's
    CAPTIONS = "captions"
    MIX = "mix"
    TRAINER = "trainer"
    EVALUATION = "evaluation"


def settings_asset(config: FactoryConfig) -> dg.AssetSpec:
    """The asset; nothing makes it but an editor."""
    return dg.AssetSpec(
        SETTINGS,
        partitions_def=dg.StaticPartitionsDefinition(list(settings_parts(config))),
        group_name="settings",
        kinds={"yaml"},
        description="What the YAML says of each shear and of each recipe's captions, mix, trainer and evaluation.",
    )


def settings_dependency(part: Part, names: list[str]) -> dg.AssetDep:
    """That the partitions of these names depend each on its own piece."""
    return dg.AssetDep(
        SETTINGS, partition_mapping=dg.StaticPartitionMapping({_key(part, name): name for name in names})
    )


def settings_parts(config: FactoryConfig) -> dict[str, Any]:
    """Every piece of the YAML by its partition key, as JSON values."""
    recipes = config.expanded_recipes()
    shears = sorted({recipe.shear for recipe in recipes})
    pieces: dict[str, Any] = {
        _key(Part.SHEAR, name): [step.model_dump(mode="json") for step in config.shear_steps(name)] for name in shears
    }
    for part, piece in _OF_RECIPES.items():
        pieces |= {_key(part, recipe.name): piece(config, recipe) for recipe in recipes}
    return pieces


def observe_settings(instance: dg.DagsterInstance, config: FactoryConfig) -> list[str]:
    """Tell Dagster of every piece that is not as it was last observed; returns the partition keys of those."""
    known = instance.event_log_storage.get_latest_tags_by_partition(
        SETTINGS, dg.DagsterEventType.ASSET_OBSERVATION, [DATA_VERSION_TAG]
    )
    changed = []
    for key, piece in settings_parts(config).items():
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


def _key(part: Part, name: str) -> str:
    return f"{part}.{name}"


def _captions(config: FactoryConfig, recipe: Recipe) -> Any:
    return {"captioners": list(recipe.captioners), "shear": recipe.shear}


def _mix(config: FactoryConfig, recipe: Recipe) -> Any:
    return {
        "captioners": list(recipe.captioners),
        "mix": recipe.mix.model_dump(mode="json"),
        "filters": filters_identity(recipe.filters),
        "json": config.training_json,
    }


def _trainer(config: FactoryConfig, recipe: Recipe) -> Any:
    said: dict[str, Any] = {"trainer": trainer_identity(recipe.trainer), "seed": recipe.seed}
    if recipe.finetune is not None:
        target_set = config.target_sets[recipe.finetune.target_set].fingerprinted()
        said |= {"finetune": trainer_identity(recipe.finetune.trainer), "target_set": target_set}
    return said


def _evaluation(config: FactoryConfig, recipe: Recipe) -> Any:
    return {name: config.evaluation_sets[name].fingerprinted() for name in recipe.evaluation_sets}


_OF_RECIPES: Mapping[Part, Callable[[FactoryConfig, Recipe], Any]] = {
    Part.CAPTIONS: _captions,
    Part.MIX: _mix,
    Part.TRAINER: _trainer,
    Part.EVALUATION: _evaluation,
}
