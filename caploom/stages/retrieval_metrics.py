"""The `retrieval_metrics` stage: a recipe's checkpoints, measured on each of its evaluation sets."""

from collections.abc import Sequence
from typing import Any

from caploom.common.progress import StageBar
from caploom.config.factory import Factory
from caploom.config.recipes import Recipe
from caploom.errors import ConfigError
from caploom.evaluation.load_encoder import load_encoder
from caploom.evaluation.measure_set import RETRIEVAL, measure_set
from caploom.evaluation.metrics import DIRECTIONS
from caploom.stages.checkpoint import CHECKPOINT, FINE_TUNED, FINETUNED_KIND, ZERO_SHOT, trainer_of
from caploom.stages.checks import BETTER_THAN_CHANCE, CheckOutcome
from caploom.stages.evaluation_sets import EVALUATION_KINDS, evaluation_ref
from caploom.stages.graph import Graph, graph_of
from caploom.stages.moves import moves_of
from caploom.stages.stage import (
    Alike,
    Checks,
    Configuration,
    Cost,
    Key,
    Making,
    Measured,
    Piece,
    Ref,
    Stage,
    Tools,
    keys_of,
)
from caploom.storage.manifest import Manifest
from caploom.storage.records import RANKS
from caploom.storage.store import Artifact, Draft

KIND = "retrieval_metrics"
CODE_VERSION = "2"


def measure_recipe(factory: Factory | Graph, recipe: Recipe, bar: StageBar | None = None) -> Artifact:
    """Measure a recipe, unless it is measured; after each of its stages and on each of its evaluation sets.

    Into `<stage>/<set>/` go `metrics.json` and the ranks or predictions of single queries (see `measure_set`). The
    summary has all `measurements`, each with `stage`, `evaluation_set`, `scoring`, `kind` and its figures.
    """
    return graph_of(factory, recipe).make(Ref(KIND, (recipe.name,)), Tools(bar=bar))


def _build(making: Making, draft: Draft) -> None:
    recipe, bar = making.recipe, making.tools.bar
    moves = moves_of(making.graph)
    measurements: list[dict[str, Any]] = []
    sets = dict(zip(recipe.evaluation_sets, making.inputs(*EVALUATION_KINDS), strict=True))
    for stage, ref in _checkpoints(recipe).items():
        encoder = load_encoder(making.graph.require(ref).folder, trainer_of(recipe).device)
        for name, artifact in sets.items():
            out = draft.folder / stage / name
            out.mkdir(parents=True)
            progress = bar.part() if bar is not None else None
            settings = making.config.evaluation_sets[name]
            measured = measure_set(name, settings, artifact, encoder, out, progress, moves)
            measurements += [{"stage": stage, **each} for each in measured]
    draft.summary = {"measurements": measurements}


def _checkpoints(recipe: Recipe) -> dict[str, Ref]:
    """The recipe's checkpoints by their stage."""
    second = {FINE_TUNED: Ref(FINETUNED_KIND, (recipe.name,))} if recipe.finetune is not None else {}
    return {ZERO_SHOT: Ref(CHECKPOINT.kind, (recipe.name,)), **second}


def _is_measured(recipe: Recipe) -> bool:
    return recipe.is_measured


def check_metrics(graph: Graph, artifact: Artifact) -> list[CheckOutcome]:
    """Recall@1 is above chance, both ways, on every evaluation set."""
    worse = [
        f"{each['evaluation_set']} {direction.replace('_', ' ')} {each[direction]['recall@1']:.4f}"
        for each in artifact.manifest.summary["measurements"]
        if each["kind"] == RETRIEVAL
        for direction in DIRECTIONS
        if each[direction]["recall@1"] <= each[direction]["chance@1"]
    ]
    sentence = f"Not above chance: {', '.join(worse)}." if worse else "Recall@1 is above chance both ways."
    return [CheckOutcome(BETTER_THAN_CHANCE, not worse, sentence, {"not_above_chance": worse})]


def _configuration(graph: Graph, key: Key) -> Configuration:
    recipe = graph.recipe(key[0])
    if not recipe.evaluation_sets:
        raise ConfigError(f"The recipe {recipe.name} names no evaluation set, so nothing can be measured; name one.")
    return {"evaluation_sets": list(recipe.evaluation_sets)}


def _sets(graph: Graph, key: Key) -> Configuration:
    names = graph.recipe(key[0]).evaluation_sets
    return {name: graph.config.evaluation_sets[name].fingerprinted() for name in names}


def _inputs(graph: Graph, key: Key) -> list[Ref]:
    recipe = graph.recipe(key[0])
    sets = (evaluation_ref(graph.config, name) for name in recipe.evaluation_sets)
    return [*_checkpoints(recipe).values(), *sets]


def _model(graph: Graph, key: Key) -> Any:
    return graph.stage("checkpoint").settings(graph, key)["trainer"]["model"]


def _units(graph: Graph, keys: Sequence[Key]) -> tuple[int, bool]:
    return sum(len(_checkpoints(graph.recipe(name))) for (name,) in keys), True


def _measured(graph: Graph, manifest: Manifest) -> Measured:
    stages = {measured.get("stage") for measured in manifest.summary.get("measurements", [])}
    return Measured(len(stages), manifest.seconds)


def _alike(graph: Graph, key: Key) -> list[Alike]:
    sets, model = list(graph.recipe(key[0]).evaluation_sets), _model(graph, key)

    def same(graph: Graph, manifest: Manifest) -> bool:
        first = graph.view.read(manifest.inputs[0].address) if manifest.inputs else None
        if manifest.configuration.get("evaluation_sets") != sets or first is None:
            return False
        return bool(first.manifest.configuration.get("trainer", {}).get("model") == model)

    return [Alike("checkpoints of this model on these sets", (), same)]


RETRIEVAL_METRICS = Stage(
    kind=KIND,
    code_version=CODE_VERSION,
    axes=("recipe",),
    keys=keys_of(_is_measured),
    recipes=_is_measured,
    settings=_configuration,
    build=_build,
    upstream=(CHECKPOINT.kind, FINETUNED_KIND, *EVALUATION_KINDS),
    inputs=_inputs,
    words=lambda configuration: f"evaluated on {', '.join(configuration['evaluation_sets'])}",
    unit="images and texts",
    cost=Cost(
        unit="checkpoints",
        line=lambda graph, key: ", ".join(graph.recipe(key[0]).evaluation_sets),
        split=_model,
        units=_units,
        measured=_measured,
        alike=_alike,
        verb="measure",
    ),
    tables={"*/*/ranks.parquet": RANKS},
    reads_images=True,
    checks=Checks((BETTER_THAN_CHANCE,), check_metrics),
    piece=Piece("evaluation", _sets),
)
