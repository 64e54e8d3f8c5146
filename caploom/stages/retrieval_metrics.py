"""The `retrieval_metrics` stage: a recipe's checkpoints, measured on each of its evaluation sets."""

from typing import Any

from caploom.common.progress import StageBar
from caploom.config.factory import Factory
from caploom.config.recipes import Recipe
from caploom.errors import ConfigError
from caploom.evaluation.encoders import load_encoder
from caploom.stages.checkpoint import FINE_TUNED, ZERO_SHOT, checkpoint_plan, finetuned_plan
from caploom.stages.evaluation_sets import evaluation_set
from caploom.stages.measure_set import measure_set
from caploom.storage.store import Artifact, Draft, Plan

KIND = "retrieval_metrics"
CODE_VERSION = "2"

RETRIEVAL, CLASSIFICATION = "retrieval", "classification"
"""Kinds of measurement."""


def retrieval_metrics_plan(factory: Factory, recipe: Recipe) -> Plan:
    """The plan of a recipe's metrics; raises `MissingArtifactError` before its checkpoints are trained."""
    if not recipe.evaluation_sets:
        raise ConfigError(f"The recipe {recipe.name} names no evaluation set, so nothing can be measured; name one.")
    checkpoints = _checkpoints(factory, recipe)
    sets = [evaluation_set(factory, name) for name in recipe.evaluation_sets]
    return retrieval_metrics_stage(recipe).of(each.as_input() for each in (*checkpoints.values(), *sets))


def retrieval_metrics_stage(recipe: Recipe) -> Plan:
    """The same without the inputs: the recipe's checkpoints, then its evaluation sets."""
    return Plan(
        kind=KIND,
        name=(recipe.name,),
        code_version=CODE_VERSION,
        configuration={"evaluation_sets": list(recipe.evaluation_sets)},
    )


def measure_recipe(factory: Factory, recipe: Recipe, bar: StageBar | None = None) -> Artifact:
    """Measure a recipe, unless it is measured; after each of its stages and on each of its evaluation sets.

    Into `<stage>/<set>/` go `metrics.json` and the ranks or predictions of single queries (see `measure_set`). The
    summary has all `measurements`, each with `stage`, `evaluation_set`, `scoring`, `kind` and its figures.
    """
    plan = retrieval_metrics_plan(factory, recipe)

    def build(draft: Draft) -> None:
        measurements: list[dict[str, Any]] = []
        for stage, checkpoint in _checkpoints(factory, recipe).items():
            encoder = load_encoder(checkpoint.folder, recipe.trainer.device)
            for name in recipe.evaluation_sets:
                out = draft.folder / stage / name
                out.mkdir(parents=True)
                progress = bar.part() if bar is not None else None
                measured = measure_set(factory, name, encoder, out, progress)
                measurements += [{"stage": stage, **each} for each in measured]
        draft.summary = {"measurements": measurements}

    return factory.store.make(plan, build)


def _checkpoints(factory: Factory, recipe: Recipe) -> dict[str, Artifact]:
    """The recipe's checkpoints by their stage."""
    make_with = f"materialize checkpoint [{recipe.name}]"
    found = {ZERO_SHOT: factory.store.require(checkpoint_plan(factory, recipe), make_with=make_with)}
    if recipe.finetune is not None:
        found[FINE_TUNED] = factory.store.require(finetuned_plan(factory, recipe), make_with=make_with)
    return found
