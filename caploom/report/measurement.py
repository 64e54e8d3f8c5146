"""The sections of one measurement: ranking, factors, curves, captioners, lengths, cost and example queries."""

from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean
from typing import Any

import numpy as np

from caploom.config.factory import Factory
from caploom.config.recipes import Recipe
from caploom.evaluation.metrics import DIRECTIONS
from caploom.questions.results.arms import Arm, Ranks, ranks_of
from caploom.questions.results.paired import Difference, Hits, difference, hits_of
from caploom.questions.results.results import RECALL_AT, ResultRow, measured_labels, percent, verdict
from caploom.report import charts
from caploom.report.costs import Cost, costs
from caploom.report.factors import Effect, effects, without_pairs
from caploom.report.queries import example_queries
from caploom.report.sections import Cell, Row, Section
from caploom.stages.moves import moves_of

_MOST_K = 100
_COSTS = ("recipe", "caption seconds", "training seconds", "mean R@1", "gain, points", "points per hour", "frontier")
_SHORT = {"image_to_text": "i2t", "text_to_image": "t2i"}


class Measurement:
    """One label's sections: an evaluation set after one stage of training, with one scoring."""

    def __init__(
        self, factory: Factory, label: str, name: str, rows: Sequence[ResultRow], by_base: Mapping[str, list[Arm]]
    ) -> None:
        self._factory, self._store = factory, factory.store
        self._label = label
        self._name = name
        self._rows = sorted(rows, key=lambda row: -row.mean_recall_at_1)
        self._arms = {
            row.recipe: [arm for arm in by_base[row.recipe] if label in measured_labels(arm.metrics)]
            for row in self._rows
        }
        self._ranks: dict[str, list[Ranks]] = {
            recipe: [ranks_of(arm.metrics, measured_labels(arm.metrics)[label]) for arm in arms]
            for recipe, arms in self._arms.items()
        }
        self._hits: dict[str, Hits] = {recipe: hits_of(ranks) for recipe, ranks in self._ranks.items()}
        # In the YAML's order: the recipe before a change comes first.
        self._recipes = {row.recipe: self._arms[row.recipe][0].recipe for row in rows}

    def sections(self, figures: dict[str, Any]) -> Iterator[Section]:
        """In the order of the page; adds their part of `results.json` to `figures`."""
        yield self._ranking(figures)
        found = effects(self._recipes, self._hits)
        figures.setdefault("effects", {})[self._label] = [_effect_figures(each) for each in found]
        yield self._factors(found)
        yield self._curves()
        yield from self._captioners_and_lengths()
        spent = costs(self._arms, {row.recipe: row.mean_recall_at_1 for row in self._rows})
        figures.setdefault("costs", {})[self._label] = [vars(each) for each in spent]
        yield self._cost(spent)
        if len(self._rows) > 1:
            yield self._queries()

    def _ranking(self, figures: dict[str, Any]) -> Section:
        best = self._rows[0]
        behind = {row.recipe: difference(self._hits[best.recipe], self._hits[row.recipe]) for row in self._rows[1:]}
        figures.setdefault("behind_the_best", {})[self._label] = {
            recipe: each.to_dict() if each is not None else None for recipe, each in behind.items()
        }
        recalls = [f"{_SHORT[d]} R@{k}" for d in DIRECTIONS for k in RECALL_AT]
        table: list[Row] = [
            ["recipe", "seeds", *recalls, "mean R@1", "x chance", "behind the best (95 % interval)", "p"]
        ]
        for row in self._rows:
            metrics = self._arms[row.recipe][0].metrics
            spread = f" ± {percent(row.spread)}" if row.spread is not None else ""
            numbers = [percent(row.recall[f"{d}@{k}"]) for d in DIRECTIONS for k in RECALL_AT]
            numbers += [
                percent(row.mean_recall_at_1) + spread,
                f"{row.times_chance:.1f}",
                *_gap(behind.get(row.recipe)),
            ]
            table.append([Cell(row.recipe, metrics), str(len(row.seeds)), *(Cell(each, metrics) for each in numbers)])
        chance = [percent(best.chance[f"{d}@{k}"]) for d in DIRECTIONS for k in RECALL_AT]
        table.append(["(chance)", "", *chance, percent(best.mean_chance_at_1), "1.0", "", ""])
        notes = [
            "i2t: image to text, t2i: text to image. Behind the best: in points of mean Recall@1, paired over the same "
            "images (an image and its captions are one unit, a recipe's seeds are averaged). It is about these "
            "checkpoints; the effect of another training seed is the spread (±) over seeds."
        ]
        return Section(
            f"{self._name}-ranking",
            f"Retrieval on {self._label} (percent)",
            strong=verdict(self._rows),
            sentences=notes,
            table=table,
            charts=[charts.recall_chart(self._rows, f"{self._name}-recall")],
        )

    def _factors(self, found: Sequence[Effect]) -> Section:
        table: list[Row] = [["factor", "change", "pairs", "effect on mean R@1, points (95 % interval)", "p", "which"]]
        for each in found:
            effect = (each.difference.signed, each.difference.p_text) if each.difference else ("other queries", "")
            pairs = "; ".join(f"{one} - {other}" for one, other in each.pairs[:3])
            more = f"; and {len(each.pairs) - 3} more" if len(each.pairs) > 3 else ""
            shown_of = self._arms[each.pairs[0][0]][0].metrics
            numbers = [Cell(text, shown_of) for text in effect]
            table.append([each.factor, each.change, str(len(each.pairs)), *numbers, pairs + more])
        notes = ["Each from the pairs of recipes that differ in that one factor alone, all else equal."]
        missing = without_pairs(list(self._recipes.values()), found)
        if missing:
            notes.append(f"Never changed alone, so nothing can be said about: {', '.join(missing)}.")
        if len(table) == 1:
            notes = ["No two recipes differ in one factor alone, so no factor's effect can be isolated."]
        return Section(
            f"{self._name}-factors",
            f"Effect of each factor on {self._label}",
            sentences=notes,
            table=table if len(table) > 1 else None,
        )

    def _curves(self) -> Section:
        drawn = []
        first = next(iter(self._ranks.values()))[0]
        candidates = {DIRECTIONS[0]: len(first.text_ids), DIRECTIONS[1]: len(first.image_ids)}
        for direction in DIRECTIONS:
            ks = range(1, min(_MOST_K, candidates[direction]) + 1)
            curves = {
                recipe: [fmean(float(np.mean(rank.of(direction) <= k)) for rank in ranks) for k in ks]
                for recipe, ranks in self._ranks.items()
            }
            chance = [_chance(first, direction, k) for k in ks]
            words = direction.replace("_", " ")
            drawn.append(charts.curves_chart(curves, chance, words, f"{self._name}-curve-{_SHORT[direction]}"))
        return Section(f"{self._name}-curves", f"Recall@K on {self._label}", charts=drawn)

    def _captioners_and_lengths(self) -> Iterator[Section]:
        recall = {row.recipe: row.mean_recall_at_1 for row in self._rows}
        points = _families(self._recipes, recall)
        if len({number for _, _, number, _ in points}) > 1:
            chart = charts.captioners_chart(points, f"{self._name}-captioners")
            yield Section(f"{self._name}-captioners", f"Number of captioners on {self._label}", charts=[chart])
        lengths = [(name, fmean(arm.mean_words for arm in self._arms[name]), recall[name]) for name in recall]
        if len(lengths) > 1:
            chart = charts.lengths_chart(lengths, f"{self._name}-lengths")
            yield Section(f"{self._name}-lengths", f"Caption length on {self._label}", charts=[chart])

    def _cost(self, spent: Sequence[Cost]) -> Section:
        table: list[Row] = [list(_COSTS)]
        cheapest = min(spent, key=lambda each: (each.seconds, each.recipe))
        for each in spent:
            arm = self._arms[each.recipe][0]
            hours = (each.seconds - cheapest.seconds) / 3600
            rate = f"{100 * each.gain / hours:,.0f}" if hours > 0 else "-"
            table.append(
                [
                    Cell(each.recipe, arm.metrics),
                    Cell(f"{each.caption_seconds:,.1f}", arm.sheared),
                    Cell(f"{each.training_seconds:,.1f}", arm.checkpoints[0]),
                    Cell(percent(each.mean_recall_at_1), arm.metrics),
                    Cell(f"{100 * each.gain:+.1f}", arm.metrics),
                    Cell(rate, arm.metrics),
                    "yes" if each.on_frontier else "",
                ]
            )
        notes = [
            f"Gains are over {cheapest.recipe}, which cost the least. Caption seconds are the captioners' own, counted "
            "for each recipe as if no other shared its captions; recipes do share them, and they are made once."
        ]
        return Section(
            f"{self._name}-cost",
            f"Cost and gain on {self._label}",
            sentences=notes,
            table=table,
            charts=[charts.pareto_chart(spent, f"{self._name}-pareto")],
        )

    def _queries(self) -> Section:
        names = [row.recipe for row in self._rows]
        wanted = [(names[0], names[-1]), (names[0], names[1]), (names[1], names[0])]
        sides = {name: (name, self._arms[name][0], self._ranks[name][0]) for name in names}
        pairs = [
            (sides[one], sides[other])
            for one, other in dict.fromkeys(wanted)
            if np.array_equal(self._ranks[one][0].text_ids, self._ranks[other][0].text_ids)
        ]
        evaluation_set = measured_labels(self._arms[names[0]][0].metrics)[self._label]["evaluation_set"]
        return Section(
            f"{self._name}-queries",
            f"Queries on {self._label} that one recipe gets right and another wrong",
            sentences=["For each pair, the queries that the other recipe ranks worst."],
            queries=example_queries(self._store, pairs, evaluation_set, moves_of(self._factory)),
        )


def _families(recipes: Mapping[str, Recipe], recall: Mapping[str, float]) -> list[tuple[str, str, int, float]]:
    """(family, recipe, captioners, share): a family shares shear and mix, and raw-only is the first of each."""
    family = {name: f"{recipe.shear}, {recipe.mix.strategy}" for name, recipe in recipes.items() if recipe.captioners}
    points = []
    for each in dict.fromkeys(family.values()) or ["raw only"]:
        members = [name for name in recipes if family.get(name, each) == each]
        for name in sorted(members, key=lambda name: len(recipes[name].captioners)):
            points.append((each, name, len(recipes[name].captioners), recall[name]))
    return points


def _chance(ranks: Ranks, direction: str, k: int) -> float:
    """The chance of finding a right answer among k random candidates, averaged over the queries."""
    if direction == DIRECTIONS[1]:
        return k / len(ranks.image_ids)
    right = np.bincount(ranks.owners, minlength=len(ranks.image_ids)).astype(float)
    missed = np.ones_like(right)
    candidates = len(ranks.text_ids)
    for drawn in range(k):
        missed *= np.clip(candidates - drawn - right, 0, None) / (candidates - drawn)
    return float(np.mean(1 - missed))


def _effect_figures(effect: Effect) -> dict[str, Any]:
    found = effect.difference.to_dict() if effect.difference is not None else None
    return {"factor": effect.factor, "change": effect.change, "pairs": [list(p) for p in effect.pairs], "effect": found}


def _gap(found: Difference | None) -> tuple[str, str]:
    if found is None:
        return "", ""
    return f"{100 * found.difference:.1f} ({100 * found.low:.1f} to {100 * found.high:.1f})", found.p_text
