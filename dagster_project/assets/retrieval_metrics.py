"""The `retrieval_metrics` asset."""

from typing import Any

import dagster as dg

from caploom.common.progress import track
from caploom.evaluation.metrics import DIRECTIONS
from caploom.exports.mlflow_mirror import mirror_metrics
from caploom.questions.lineage.lineage_graph import artifact_lineage
from caploom.questions.lineage.text import lineage_markdown
from caploom.questions.results.data_versions import data_versions
from caploom.questions.results.results import ArmResult, classification_rows, result_rows
from caploom.questions.results.tables import (
    classification_table,
    markdown_table,
    measurement_tables,
    recall_table,
)
from caploom.report.versions import versions_markdown
from caploom.stages.retrieval_metrics import RETRIEVAL_METRICS
from dagster_project.assets.dependencies import ByHand, FactoryAssets
from dagster_project.assets.materialization import AssetEvents, left_out, result, user_errors
from dagster_project.pools import GPU_POOL
from dagster_project.resources.factory import FactoryResource
from dagster_project.resources.trainer import Trainer


def retrieval_metrics_assets(assets: FactoryAssets) -> list[dg.AssetsDefinition]:
    """The asset over all recipes."""

    @assets.asset(RETRIEVAL_METRICS, pool=GPU_POOL, output_required=False, group_name="experiments", kinds={"json"})
    def retrieval_metrics(context: dg.AssetExecutionContext, factory: FactoryResource, trainer: Trainer) -> AssetEvents:
        """Recall@K of images and captions both ways, on each evaluation set, beside chance."""
        with user_errors():
            graph = factory.graph(context)
            recipe = graph.recipe(context.partition_key)
            if not recipe.is_measured:
                sentence = f"{recipe.name} is not measured: it has no trainer or no evaluation set."
                yield from left_out(context, RETRIEVAL_METRICS, sentence)
                return
            parts = len(recipe.evaluation_sets) * (2 if recipe.finetune else 1)
            with track(f"retrieval_metrics [{recipe.name}]", "embeddings", parts=parts) as bar:
                artifact = trainer.measure(graph, recipe, bar)
            metadata = _metadata(ArmResult(recipe, artifact))
            metadata["lineage"] = dg.MetadataValue.md(
                lineage_markdown(artifact_lineage(graph.store, artifact.manifest.address))
            )
            versions = data_versions(graph, recipe.name, like=artifact)
            if len(versions.versions) > 1:
                metadata["versions"] = dg.MetadataValue.md(versions_markdown(versions))
            mirrored = mirror_metrics(graph.factory, recipe, artifact)
            if mirrored is not None:
                metadata["mlflow"] = mirrored.problem or f"run {mirrored.run_id}"
            yield result(artifact, RETRIEVAL_METRICS.checks.run(graph, artifact), metadata, recipe=recipe)

    return [retrieval_metrics]


def _metadata(arm: ArmResult) -> dict[str, Any]:
    """What was measured, the tables first; numbers by themselves, since the UI plots those over materializations."""
    rows, classified = result_rows([arm]), classification_rows([arm])
    tables = {f"{row.label} recall": markdown_table(recall_table([row])) for row in rows}
    tables |= {f"{label}: figures": markdown_table(table) for label, table in measurement_tables(arm).items()}
    tables |= {f"{row.label} accuracy": markdown_table(classification_table([row])) for row in classified}
    return (
        {name: dg.MetadataValue.md(table) for name, table in tables.items()}
        | {f"{row.label} mean Recall@1": round(row.mean_recall_at_1, 4) for row in rows}
        | {
            f"{row.label} {direction.replace('_', ' ')} Recall@1": round(row.recall[f"{direction}@1"], 4)
            for row in rows
            for direction in DIRECTIONS
        }
        | {f"{row.label} RSUM": round(row.rsum, 2) for row in rows}
        | {f"{row.label} top-1": round(row.figures["top1"], 4) for row in classified}
    )


BY_HAND = ByHand(RETRIEVAL_METRICS, retrieval_metrics_assets)
