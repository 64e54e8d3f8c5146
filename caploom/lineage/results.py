"""Gathers what the recipes reached: one row a recipe and evaluation set, mean and spread over seeds."""

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from caploom.config import Recipe
from caploom.errors import MissingArtifactError
from caploom.evaluation.measure import retrieval_metrics_plan
from caploom.factory import Factory
from caploom.store import Artifact

DIRECTIONS = ("image_to_text", "text_to_image")
RECALL_AT = (1, 5, 10)


@dataclass(frozen=True)
class ArmResult:
    """One trained recipe and its metrics."""

    recipe: Recipe
    metrics: Artifact


@dataclass(frozen=True)
class ResultRow:
    """A recipe on one evaluation set; recalls and chances are shares, 0 to 1, means over the seeds.

    `recall` and `chance` have keys such as `image_to_text@1`. `spread` is the sample standard deviation of
    `mean_recall_at_1` over the seeds, None for a single seed.
    """

    evaluation_set: str
    recipe: str
    seeds: tuple[int, ...]
    recall: dict[str, float]
    chance: dict[str, float]
    mean_recall_at_1: float
    mean_chance_at_1: float
    spread: float | None

    @property
    def times_chance(self) -> float:
        """Mean Recall@1 as a multiple of chance."""
        return self.mean_recall_at_1 / self.mean_chance_at_1 if self.mean_chance_at_1 else float("nan")

    def to_dict(self) -> dict[str, Any]:
        """As it is written to `results.json`."""
        return {**asdict(self), "times_chance": self.times_chance}


def finished_arms(factory: Factory) -> tuple[list[ArmResult], list[Recipe]]:
    """The recipes that are measured for the present configuration, and those that are not (yet)."""
    done: list[ArmResult] = []
    waiting: list[Recipe] = []
    for recipe in factory.config.expanded_recipes():
        try:
            artifact = factory.store.find(retrieval_metrics_plan(factory, recipe))
        except MissingArtifactError:
            artifact = None
        if artifact is None:
            waiting.append(recipe)
        else:
            done.append(ArmResult(recipe, artifact))
    return done, waiting


def result_rows(arms: Sequence[ArmResult]) -> list[ResultRow]:
    """A row for each evaluation set and recipe, seeds taken together, in the order of the YAML."""
    groups: dict[tuple[str, str], list[tuple[int, dict[str, Any]]]] = {}
    for arm in arms:
        for name in arm.recipe.evaluation_sets:
            key = (name, arm.recipe.base)
            groups.setdefault(key, []).append((arm.recipe.seed, arm.metrics.manifest.summary[name]))
    return [_row(name, recipe, runs) for (name, recipe), runs in groups.items()]


def _row(evaluation_set: str, recipe: str, runs: list[tuple[int, dict[str, Any]]]) -> ResultRow:
    def mean(direction: str, key: str) -> float:
        return statistics.fmean(metrics[direction][key] for _, metrics in runs)

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
    return f"{text} ({seeds} seed{'s' if seeds > 1 else ''})."


def percent(share: float) -> str:
    """A share as a percentage: one decimal, two below one percent (chance is often there)."""
    return f"{100 * share:.2f}" if 0 < share < 0.01 else f"{100 * share:.1f}"


def _gap(better: ResultRow, worse: ResultRow) -> str:
    return f"{100 * (better.mean_recall_at_1 - worse.mean_recall_at_1):.1f} points"
