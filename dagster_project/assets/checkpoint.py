"""The `checkpoint` asset."""

from typing import Any

import dagster as dg

from caploom.config import FactoryConfig
from caploom.lineage.checks import LOSS_IS_FINITE, check_checkpoint
from caploom.lineage.fingerprints import fingerprint
from caploom.lineage.plots import loss_curve
from caploom.progress import track
from caploom.recipes import Recipe
from caploom.store import Artifact
from caploom.training.checkpoint import CODE_VERSION, FINE_TUNED, ZERO_SHOT
from caploom.training.identity import trainer_identity
from dagster_project.assets.materialization import artifact_metadata, check_specs, picture, result, user_errors
from dagster_project.assets.training_set import TRAINING_SET
from dagster_project.partitions import recipe_partitions
from dagster_project.pools import GPU_POOL
from dagster_project.resources.factory import FactoryResource
from dagster_project.resources.trainer import Trainer

CHECKPOINT = dg.AssetKey("checkpoint")


def checkpoint_asset(config: FactoryConfig) -> dg.AssetsDefinition:
    """The asset over all recipes."""

    @dg.asset(
        key=CHECKPOINT,
        deps=[TRAINING_SET],
        partitions_def=recipe_partitions(config),
        pool=GPU_POOL,
        code_version=fingerprint([CODE_VERSION, {r.name: _configured(config, r) for r in config.expanded_recipes()}]),
        check_specs=check_specs(CHECKPOINT, LOSS_IS_FINITE),
        group_name="experiments",
        kinds={"pytorch"},
    )
    def checkpoint(
        context: dg.AssetExecutionContext, factory: FactoryResource, trainer: Trainer
    ) -> dg.MaterializeResult:
        """A model trained on the recipe's training set, and fine-tuned where the recipe says so.

        All recipes of a trainer take the same number of steps.
        """
        with user_errors():
            opened = factory.open(context.run.run_id)
            recipe = opened.config.recipe(context.partition_key)
            with track(f"checkpoint [{recipe.name}]", "steps", parts=2 if recipe.finetune else 1) as bar:
                trained = trainer.train(context, opened, recipe, bar)
            extra = _metadata(trained[ZERO_SHOT], f"Loss: {recipe.name}")
            checks = check_checkpoint(trained[ZERO_SHOT])
            tuned = trained.get(FINE_TUNED)
            if tuned is not None:
                found = _metadata(tuned, f"Loss: {recipe.name}, fine-tuned") | artifact_metadata(tuned)
                extra |= {f"fine-tuned: {name}": value for name, value in found.items()}
                checks = [*checks, *check_checkpoint(tuned)]
            return result(trained[ZERO_SHOT], checks, extra, recipe=recipe.name, also=[tuned] if tuned else [])

    return checkpoint


def _configured(config: FactoryConfig, recipe: Recipe) -> list[Any]:
    """What the recipe's stages are made by; a recipe without a second stage is told as before there were any."""
    configured = [trainer_identity(recipe.trainer), recipe.seed]
    if recipe.finetune is None:
        return configured
    target_set = config.target_sets[recipe.finetune.target_set].fingerprinted()
    return [*configured, trainer_identity(recipe.finetune.trainer), target_set]


def _metadata(artifact: Artifact, title: str) -> dict[str, Any]:
    summary = artifact.manifest.summary
    metadata = {
        "loss": picture(loss_curve(summary["losses"], title), "loss curve"),
        "final_loss": summary["final_loss"],
        "samples_seen": summary["samples_seen"],
        "samples_per_second": summary["samples_per_second"],
        "data_wait_share": summary["data_wait_share"],
    }
    if summary["unusable_rows"]:
        metadata["unusable_rows"] = dg.MetadataValue.json(summary["unusable_rows"])
    if summary["truncated_share"]:
        metadata["truncated_share"] = summary["truncated_share"]
    return metadata | ({"notes": " ".join(summary["notes"])} if summary["notes"] else {})
