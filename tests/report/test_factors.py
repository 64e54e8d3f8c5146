"""Which recipes tell of which factor."""

import numpy as np
import pytest
from asked_factory import write_factory

from caploom.config.factory_config import load_config
from caploom.questions.results.paired import Hits
from caploom.report.factors import effects, without_pairs


@pytest.fixture
def recipes_of(tmp_path):
    def recipes(**recipes):
        captioner = {"model": "demo:tiny-llava", "prompt": "Describe <image>:"}
        captioners = {"colours": captioner, "second": {**captioner, "prompt": "And <image>?"}}
        path = write_factory(tmp_path, recipes=recipes, captioners=captioners)
        return {recipe.name: recipe for recipe in load_config(path).expanded_recipes()}

    return recipes


def hits(share):
    found = (np.arange(40) < 40 * share).astype(float)
    ids = np.array([f"image{number:02d}" for number in range(40)])
    return Hits(ids, np.array([f"{each}#0" for each in ids]), found, found, np.arange(40))


def told(recipes, **shares):
    return {
        (each.factor, each.change): (each.pairs, round(each.difference.difference, 3))
        for each in effects(recipes, {name: hits(share) for name, share in shares.items()})
    }


def test_one_captioner_more_all_else_equal_is_that_captioners_effect(recipes_of):
    recipes = recipes_of(
        none={"captioners": []},
        one={"captioners": ["colours"], "shear": "first"},
        both={"captioners": ["colours", "second"], "shear": "first"},
    )
    assert told(recipes, none=0.1, one=0.5, both=0.6) == {
        ("captioner", "colours added"): ((("one", "none"),), 0.4),
        ("captioner", "second added"): ((("both", "one"),), 0.1),
    }
    assert without_pairs(list(recipes.values()), effects(recipes, {name: hits(0.5) for name in recipes})) == []


def test_two_changes_at_once_tell_of_neither(recipes_of):
    recipes = recipes_of(
        plain={"captioners": ["colours"]},
        other={"captioners": ["colours", "second"], "shear": "first"},
    )
    found = effects(recipes, {name: hits(0.5) for name in recipes})
    assert found == []
    assert without_pairs(list(recipes.values()), found) == ["the captioner second", "shear"]


def test_a_mix_and_a_filter_are_factors(recipes_of):
    recipes = recipes_of(
        uniform={"captioners": "all"},
        rather_raw={"captioners": "all", "mix": {"raw_probability": 0.7}},
        filtered={"captioners": "all", "filters": ["no_empty"]},
    )
    found = told(recipes, uniform=0.4, rather_raw=0.2, filtered=0.5)
    assert found["mix", "uniform to strategy raw_probability, raw_probability 0.7"][1] == -0.2
    assert found["filters", "none to no_empty"] == ((("filtered", "uniform"),), 0.1)
