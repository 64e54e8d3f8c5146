"""Gathers what the recipes reached: one row a recipe and measurement, mean and spread over seeds."""

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from caploom.common.text import counted
from caploom.config.factory import Factory
from caploom.config.recipes import Recipe
from caploom.evaluation.encoders import COSINE
from caploom.evaluation.measure_set import CLASSIFICATION, RETRIEVAL
from caploom.evaluation.metrics import DIRECTIONS
from caploom.stages.checkpoint import ZERO_SHOT
from caploom.stages.graph import Graph, graph_of
from caploom.stages.stage import Ref
from caploom.storage.store import Artifact

RECALL_AT = (1, 5, 10)
CLASSIFICATION_FIGURES = ("top1", "top5", "mean_per_class_recall", "chance_top1")
"""Of a measurement of classification, what tables show."""


@dataclass(frozen=True)
class ArmResult:
    """One trained recipe and its metrics."""

    recipe: Recipe
    metrics: Artifact


@dataclass(frozen=True)
class ResultRow:
    """A recipe's retrieval on one evaluation set; recalls and chances are shares, 0 to 1, means over the seeds.

    `recall` and `chance` have keys such as `image_to_text@1`. `spread` is the sample standard deviation of
    `mean_recall_at_1` over the seeds, None for a single seed. `stage` says after which training it was measured
    (zero-shot, fine-tuned), `scoring` how a pair is scored (cosine; ITC; ITC and re-ranking).
    """

    evaluation_set: str
    recipe: str
    seeds: tuple[int, ...]
    recall: dict[str, float]
    chance: dict[str, float]
    mean_recall_at_1: float
    mean_chance_at_1: float
    spread: float | None
    stage: str = ZERO_SHOT
    scoring: str = COSINE

    @property
    def times_chance(self) -> float:
        """Mean Recall@1 as a multiple of chance."""
        return self.mean_recall_at_1 / self.mean_chance_at_1 if self.mean_chance_at_1 else float("nan")

    @property
    def rsum(self) -> float:
        """Sum of the six recalls in percent."""
        return 100 * sum(self.recall.values())

    @property
    def label(self) -> str:
        """What was measured: the set, and stage and scoring where they are not the plain ones."""
        return measurement_label(self.evaluation_set, self.stage, self.scoring)

    def to_dict(self) -> dict[str, Any]:
        """As it is written to `results.json`."""
        return {**asdict(self), "times_chance": self.times_chance, "rsum": self.rsum}


@dataclass(frozen=True)
class ClassificationRow:
    """A recipe's zero-shot classification on one evaluation set; shares, 0 to 1, means over the seeds.

    `figures` has those of `CLASSIFICATION_FIGURES` that the set has: `top5` only where there are more classes.
    """

    evaluation_set: str
    recipe: str
    seeds: tuple[int, ...]
    figures: dict[str, float]
    stage: str = ZERO_SHOT

    @property
    def label(self) -> str:
        """What was measured, like a `ResultRow`'s."""
        return measurement_label(self.evaluation_set, self.stage, COSINE)


def measurement_label(evaluation_set: str, stage: str, scoring: str) -> str:
    """`coco`, `coco, fine-tuned`, `coco, fine-tuned, ITC`: the plain stage and scoring go without saying."""
    said = [evaluation_set, *([stage] if stage != ZERO_SHOT else []), *([scoring] if scoring != COSINE else [])]
    return ", ".join(said)


def measurements_of(metrics: Artifact, kind: str) -> list[dict[str, Any]]:
    """A recipe's measurements of a kind, retrieval or classification."""
    return [each for each in metrics.manifest.summary["measurements"] if each["kind"] == kind]


def measured_labels(metrics: Artifact) -> dict[str, dict[str, Any]]:
    """The measurements of retrieval by their labels, of one recipe's metrics."""
    found = measurements_of(metrics, RETRIEVAL)
    return {measurement_label(each["evaluation_set"], each["stage"], each["scoring"]): each for each in found}


def retrieval_sets(metrics: Artifact) -> list[tuple[str, str]]:
    """The stages and retrieval sets that a recipe was measured on, each once."""
    return list(dict.fromkeys((each["stage"], each["evaluation_set"]) for each in measurements_of(metrics, RETRIEVAL)))


def finished_arms(factory: Factory | Graph) -> tuple[list[ArmResult], list[Recipe]]:
    """The recipes that are measured for the present configuration, and those that are not measured yet."""
    done: list[ArmResult] = []
    waiting: list[Recipe] = []
    graph = graph_of(factory)
    for recipe in graph.recipes.values():
        if not recipe.is_measured:
            continue
        artifact = graph.find(Ref("retrieval_metrics", (recipe.name,)))
        if artifact is None:
            waiting.append(recipe)
        else:
            done.append(ArmResult(recipe, artifact))
    return done, waiting


def result_rows(arms: Sequence[ArmResult]) -> list[ResultRow]:
    """A row for each measurement of retrieval and recipe, seeds taken together, in the order of the YAML."""
    return [_row(key, runs) for key, runs in _measurements(arms, RETRIEVAL).items()]


def classification_rows(arms: Sequence[ArmResult]) -> list[ClassificationRow]:
    """A row for each measurement of classification and recipe, seeds taken together, in the order of the YAML."""
    rows = []
    for (evaluation_set, stage, _, recipe), runs in _measurements(arms, CLASSIFICATION).items():
        names = [name for name in CLASSIFICATION_FIGURES if name in runs[0][1]]
        figures = {name: statistics.fmean(figures[name] for _, figures in runs) for name in names}
        rows.append(ClassificationRow(evaluation_set, recipe, tuple(seed for seed, _ in runs), figures, stage))
    return rows


_Key = tuple[str, str, str, str]  # evaluation set, stage, scoring, recipe
_Runs = list[tuple[int, dict[str, Any]]]  # seed, figures


def _measurements(arms: Sequence[ArmResult], kind: str) -> dict[_Key, _Runs]:
    groups: dict[_Key, _Runs] = {}
    for arm in arms:
        for each in measurements_of(arm.metrics, kind):
            key = (each["evaluation_set"], each["stage"], each["scoring"], arm.recipe.base)
            groups.setdefault(key, []).append((arm.recipe.seed, each))
    return groups


def _row(key: _Key, runs: _Runs) -> ResultRow:
    def mean(direction: str, figure: str) -> float:
        return statistics.fmean(metrics[direction][figure] for _, metrics in runs)

    evaluation_set, stage, scoring, recipe = key
    at_1 = [metrics["mean_recall@1"] for _, metrics in runs]
    places = [(direction, k) for direction in DIRECTIONS for k in RECALL_AT]
    return ResultRow(
        evaluation_set=evaluation_set,
        recipe=recipe,
        seeds=tuple(seed for seed, _ in runs),
        recall={f"{direction}@{k}": mean(direction, f"recall@{k}") for direction, k in places},
        chance={f"{direction}@{k}": mean(direction, f"chance@{k}") for direction, k in places},
        mean_recall_at_1=statistics.fmean(at_1),
        mean_chance_at_1=statistics.fmean(metrics["mean_chance@1"] for _, metrics in runs),
        spread=statistics.stdev(at_1) if len(at_1) > 1 else None,
        stage=stage,
        scoring=scoring,
    )


def verdict(rows: Sequence[ResultRow]) -> str:
    """Which recipe won, by how much, and against what: one sentence (of one evaluation set's rows)."""
    ranked = sorted(rows, key=lambda row: -row.mean_recall_at_1)
    best = ranked[0]
    if best.times_chance <= 1:
        return f"No recipe is above chance; the nearest is {best.recipe} with {best.times_chance:.1f} times chance."
    text = (
        f"{best.recipe} wins with a mean Recall@1 of {percent(best.mean_recall_at_1)} %, "
        f"{best.times_chance:.1f} times chance"
    )
    if len(ranked) == 1:
        return f"{text}; there is no other recipe to compare it with."
    second, last = ranked[1], ranked[-1]
    text += f"; {_gap(best, second)} ahead of {second.recipe}"
    if last is not second:
        text += f" and {_gap(best, last)} ahead of {last.recipe}"
    seeds = len(best.seeds)
    return f"{text} ({counted(seeds, 'seeds')})."


def percent(share: float | None) -> str:
    """A share as a percentage: one decimal, two below one percent (chance is often there); "-" where there is none."""
    if share is None:
        return "-"
    return f"{100 * share:.2f}" if 0 < share < 0.01 else f"{100 * share:.1f}"


def _gap(better: ResultRow, worse: ResultRow) -> str:
    return f"{100 * (better.mean_recall_at_1 - worse.mean_recall_at_1):.1f} points"
