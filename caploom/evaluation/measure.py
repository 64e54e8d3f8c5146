"""The `retrieval_metrics` stage: a recipe's checkpoint, measured on each of its evaluation sets."""

from typing import Any

from caploom.config import Recipe
from caploom.errors import ConfigError
from caploom.evaluation.evaluation_pairs import evaluation_pairs
from caploom.factory import Factory
from caploom.progress import StageBar
from caploom.store import Artifact, Draft, Plan
from caploom.training.checkpoint import checkpoint_plan

KIND = "retrieval_metrics"
CODE_VERSION = "1"


def retrieval_metrics_plan(factory: Factory, recipe: Recipe) -> Plan:
    """The plan of a recipe's metrics; raises `MissingArtifactError` before its checkpoint is trained."""
    if not recipe.evaluation_sets:
        raise ConfigError(f"The recipe {recipe.name} names no evaluation set, so nothing can be measured; name one.")
    checkpoint = factory.store.require(
        checkpoint_plan(factory, recipe), make_with=f"materialize checkpoint [{recipe.name}]"
    )
    sets = [evaluation_pairs(factory, name) for name in recipe.evaluation_sets]
    return Plan(
        kind=KIND,
        name=(recipe.name,),
        code_version=CODE_VERSION,
        configuration={"evaluation_sets": list(recipe.evaluation_sets)},
        inputs=(checkpoint.as_input(), *(each.as_input() for each in sets)),
    )


def measure_recipe(factory: Factory, recipe: Recipe, bar: StageBar | None = None) -> Artifact:
    """Measure a recipe, unless it is measured: `<set>/metrics.json` and `<set>/ranks.parquet` (schema RANKS)."""
    plan = retrieval_metrics_plan(factory, recipe)

    def build(draft: Draft) -> None:
        from caploom.evaluation.evaluate import evaluate_checkpoint

        checkpoint = factory.store.require(checkpoint_plan(factory, recipe), make_with="train")
        results: dict[str, Any] = {}
        for name in recipe.evaluation_sets:
            out = draft.folder / name
            out.mkdir()
            pairs = evaluation_pairs(factory, name).file("pairs.parquet")
            progress = bar.part() if bar is not None else None
            metrics = evaluate_checkpoint(
                checkpoint.folder, pairs, out=out, device=recipe.trainer.device, progress=progress
            )
            results[name] = metrics.to_dict()
        draft.summary = results

    return factory.store.make(plan, build)
