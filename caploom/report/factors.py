"""The effect of each factor of an ablation, from pairs of recipes that differ only in that factor."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from caploom.config.recipes import Recipe
from caploom.questions.results.paired import Difference, Hits, mean_difference
from caploom.stages.checkpoint import trainer_of

CAPTIONER, SHEAR, MIX, FILTERS, TRAINER = "captioner", "shear", "mix", "filters", "trainer"
_FACTORS = (SHEAR, MIX, FILTERS, TRAINER)


@dataclass(frozen=True)
class Effect:
    """The effect of a change of one factor, all else equal.

    Attributes:
        factor: captioner, shear, mix, filters or trainer.
        change: in words: "tiny-llava added", "none to first-sentence".
        pairs: the recipes with and without it: (with, without).
        difference: the mean over the pairs of mean Recall@1 with minus without; None where they share no queries.
    """

    factor: str
    change: str
    pairs: tuple[tuple[str, str], ...]
    difference: Difference | None


def effects(recipes: Mapping[str, Recipe], hits: Mapping[str, Hits]) -> list[Effect]:
    """Every change of one factor that two recipes show, in the factors' order and the recipes' own."""
    found: dict[tuple[str, str], list[tuple[str, str]]] = {}
    names = [name for name in recipes if name in hits]
    for index, first in enumerate(names):
        for second in names[index + 1 :]:
            for factor, change, pair in _changes(recipes, first, second):
                found.setdefault((factor, change), []).append(pair)
    order = [CAPTIONER, *_FACTORS]
    return [
        Effect(factor, change, tuple(pairs), mean_difference([(hits[one], hits[other]) for one, other in pairs]))
        for (factor, change), pairs in sorted(found.items(), key=lambda item: order.index(item[0][0]))
    ]


def without_pairs(recipes: Sequence[Recipe], found: Sequence[Effect]) -> list[str]:
    """The captioners and factors that vary among the recipes, but never alone, so that they cannot be compared."""
    covered = {effect.factor for effect in found}
    added = {effect.change for effect in found if effect.factor == CAPTIONER}
    having = [captioner for recipe in recipes for captioner in recipe.captioners]
    captioners = [name for name in dict.fromkeys(having) if having.count(name) < len(recipes)]
    # The shear and mix of raw captions alone have no meaning.
    telling = {factor: [r for r in recipes if r.captioners or factor not in (SHEAR, MIX)] for factor in _FACTORS}
    factors = [factor for factor, of in telling.items() if len({_value(recipe, factor) for recipe in of}) > 1]
    return [
        *(f"the captioner {name}" for name in captioners if f"{name} added" not in added),
        *(factor for factor in factors if factor not in covered),
    ]


def _changes(recipes: Mapping[str, Recipe], first: str, second: str) -> list[tuple[str, str, tuple[str, str]]]:
    """The only change between two recipes; None where there are none or several."""
    one, other = recipes[first], recipes[second]
    mine, theirs = set(one.captioners), set(other.captioners)
    # Without captioners there is nothing to shear, and only one caption to draw, so neither distinguishes recipes.
    settled = (SHEAR, MIX) if not (mine and theirs) else ()
    differing = [
        factor for factor in _FACTORS if factor not in settled and _value(one, factor) != _value(other, factor)
    ]
    if mine == theirs and len(differing) == 1 and mine:
        (factor,) = differing
        change = f"{_words(one, factor)} to {_words(other, factor)}"
        return [(factor, change, (second, first))]
    if len(mine ^ theirs) == 1 and not differing:
        (captioner,) = mine ^ theirs
        pair = (first, second) if captioner in mine else (second, first)
        return [(CAPTIONER, f"{captioner} added", pair)]
    return []


def _value(recipe: Recipe, factor: str) -> str:
    values = {
        SHEAR: recipe.shear,
        MIX: recipe.mix.model_dump(mode="json"),
        FILTERS: [step.model_dump(mode="json") for step in recipe.filters],
        TRAINER: trainer_of(recipe).model_dump(mode="json"),
    }
    return json.dumps(values[factor], sort_keys=True)


def _words(recipe: Recipe, factor: str) -> str:
    if factor == MIX:
        given = recipe.mix.model_dump(mode="json", exclude_defaults=True)
        return ", ".join(f"{key} {value}" for key, value in given.items()) or recipe.mix.strategy
    if factor == FILTERS:
        return ", ".join(step.filter for step in recipe.filters) or "none"
    if factor == TRAINER:
        trainer = trainer_of(recipe)
        return f"{trainer.model}, {trainer.steps} steps"
    return recipe.shear
