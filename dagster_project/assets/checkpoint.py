"""The `checkpoint` asset."""

from typing import Any

import dagster as dg

from caploom.common.progress import track
from caploom.report.plots import loss_curve
from caploom.stages.checkpoint import CHECKPOINT, FINE_TUNED, FINETUNED_CHECKPOINT, ZERO_SHOT
from caploom.storage.store import Artifact
from dagster_project.assets.dependencies import ByHand, FactoryAssets
from dagster_project.assets.materialization import AssetEvents, artifact_metadata, left_out, result, user_errors
from dagster_project.markdown import picture
from dagster_project.pools import GPU_POOL
from dagster_project.resources.factory import FactoryResource
from dagster_project.resources.trainer import Trainer


def checkpoint_assets(assets: FactoryAssets) -> list[dg.AssetsDefinition]:
    """The asset over all recipes, which has the checkpoints of both stages."""

    @assets.asset(CHECKPOINT, pool=GPU_POOL, output_required=False, group_name="experiments", kinds={"pytorch"})
    def checkpoint(context: dg.AssetExecutionContext, factory: FactoryResource, trainer: Trainer) -> AssetEvents:
        """A model trained on the recipe's training set, and fine-tuned where the recipe says so.

        All recipes of a trainer take the same number of steps.
        """
        with user_errors():
            graph = factory.graph(context)
            recipe = graph.recipe(context.partition_key)
            if not recipe.is_trained:
                yield from left_out(context, CHECKPOINT, f"{recipe.name} has no trainer: it ends at its training set.")
                return
            with track(f"checkpoint [{recipe.name}]", "steps", parts=2 if recipe.finetune else 1) as bar:
                trained = trainer.train(context, graph, recipe, bar)
            extra = _metadata(trained[ZERO_SHOT], f"Loss: {recipe.name}")
            checks = CHECKPOINT.checks.run(graph, trained[ZERO_SHOT])
            tuned = trained.get(FINE_TUNED)
            if tuned is not None:
                found = _metadata(tuned, f"Loss: {recipe.name}, fine-tuned") | artifact_metadata(tuned)
                extra |= {f"fine-tuned: {name}": value for name, value in found.items()}
                checks = [*checks, *FINETUNED_CHECKPOINT.checks.run(graph, tuned)]
            yield result(trained[ZERO_SHOT], checks, extra, recipe=recipe, also=[tuned] if tuned else [])

    return [checkpoint]


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


BY_HAND = ByHand(CHECKPOINT, checkpoint_assets)
