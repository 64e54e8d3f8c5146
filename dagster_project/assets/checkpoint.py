"""The `checkpoint` asset."""

import dagster as dg

from caploom.config import FactoryConfig
from caploom.lineage.checks import LOSS_IS_FINITE, check_checkpoint
from caploom.lineage.fingerprints import fingerprint
from caploom.lineage.plots import loss_curve
from caploom.progress import track
from caploom.training.checkpoint import CODE_VERSION, trainer_identity
from dagster_project.assets.materialization import check_specs, picture, result, user_errors
from dagster_project.assets.training_set import TRAINING_SET
from dagster_project.partitions import recipe_partitions
from dagster_project.pools import GPU_POOL
from dagster_project.resources.clip_trainer import ClipTrainer
from dagster_project.resources.factory import FactoryResource

CHECKPOINT = dg.AssetKey("checkpoint")


def checkpoint_asset(config: FactoryConfig) -> dg.AssetsDefinition:
    """The asset over all recipes."""
    configured = {recipe.name: [trainer_identity(recipe), recipe.seed] for recipe in config.expanded_recipes()}

    @dg.asset(
        key=CHECKPOINT,
        deps=[TRAINING_SET],
        partitions_def=recipe_partitions(config),
        pool=GPU_POOL,
        code_version=fingerprint([CODE_VERSION, configured]),
        check_specs=check_specs(CHECKPOINT, LOSS_IS_FINITE),
        group_name="experiments",
        kinds={"pytorch"},
    )
    def checkpoint(
        context: dg.AssetExecutionContext, factory: FactoryResource, clip_trainer: ClipTrainer
    ) -> dg.MaterializeResult:
        """A CLIP model trained on the recipe's training set; all recipes of a trainer take the same number of steps."""
        with user_errors():
            opened = factory.open(context.run.run_id)
            recipe = opened.config.recipe(context.partition_key)
            with track(f"checkpoint [{recipe.name}]", "steps") as bar:
                artifact = clip_trainer.train(opened, recipe, bar.part())
            curve = loss_curve(artifact.manifest.summary["losses"], f"Loss: {recipe.name}")
            extra = {
                "loss": picture(curve, "loss curve"),
                "final_loss": artifact.manifest.summary["final_loss"],
                "samples_per_second": artifact.manifest.summary["samples_per_second"],
            }
            return result(artifact, check_checkpoint(artifact), extra, recipe=recipe.name)

    return checkpoint
