import re

import pytest
from small_factory import settings_of

from caploom.common.names import NAME_PATTERN
from caploom.config.factory_config import DEMO_CONFIG, load_config
from caploom.errors import ConfigError
from caploom.training_set.settings import MixSettings

CAPTIONERS = ("a", "b", "c", "d")


@pytest.fixture
def grid_config(write_source, write_config):
    """The configuration of a grid; `changes` go beside it into the YAML."""
    source = write_source(1)

    def load(grid, *, captioners=CAPTIONERS, seeds=None, **changes):
        prompted = {name: {"model": "demo:tiny-llava", "prompt": f"{name} <image>:"} for name in captioners}
        settings = settings_of(source, captioners=prompted, **{"grid": grid, "recipes": {}, **changes})
        return load_config(write_config(settings), seeds=seeds)

    return load


@pytest.fixture
def arms(grid_config):
    return lambda grid, **changes: [recipe.name for recipe in grid_config(grid, **changes).expanded_recipes()]


@pytest.fixture
def refused(grid_config):
    def message(grid, **changes):
        with pytest.raises(ConfigError) as error:
            grid_config(grid, **changes)
        return str(error.value)

    return message


@pytest.mark.parametrize(
    ("captioners", "sets"),
    [
        ([[]], [()]),
        ([["b"]], [("b",)]),
        ([["c", "a"]], [("a", "c")]),
        ("all", [CAPTIONERS]),
        (["all"], [CAPTIONERS]),
        ({"subsets": "each"}, [("a",), ("b",), ("c",), ("d",)]),
        ({"subsets": "each", "of": ["d", "b"]}, [("d",), ("b",)]),
        ({"subsets": "cumulative"}, [CAPTIONERS[:size] for size in (1, 2, 3, 4)]),
        ({"subsets": "cumulative", "of": ["d", "b"]}, [("d",), ("b", "d")]),
        ({"subsets": "up_to", "most": 2, "of": ["a", "b", "c"]}, [*"abc", "ab", "ac", "bc"]),
        ([[], {"subsets": "each", "of": ["a"]}, ["a"]], [(), ("a",)]),
    ],
)
def test_sets_of_captioners(grid_config, captioners, sets):
    recipes = grid_config({"captioners": captioners}).expanded_recipes()
    assert [recipe.captioners for recipe in recipes] == [tuple(each) for each in sets]


def test_all_subsets_are_every_set_but_the_empty_one_once(grid_config):
    recipes = grid_config({"captioners": {"subsets": "all"}}).expanded_recipes()
    assert len(recipes) == len({recipe.captioners for recipe in recipes}) == 15


def test_every_combination_is_an_arm_and_its_name_says_which(grid_config):
    grid = {
        "captioners": [[], ["a"], ["b", "d"], "all"],
        "shears": ["none", "first"],
        "mixes": {"uniform": "uniform", "mostly-raw": {"raw_probability": 0.8}},
        "filters": {"unfiltered": [], "long": [{"min_words": 3}]},
    }
    recipes = {recipe.name: recipe for recipe in grid_config(grid).expanded_recipes()}
    assert len(recipes) == 2 + 3 * 2 * 2 * 2
    assert all(re.match(NAME_PATTERN, name) for name in recipes)
    assert {"raw-only", "raw-only.long", "a.none", "b-and-d.first", "4-captioners.first.mostly-raw.long"} <= set(
        recipes
    )
    arm = recipes["4-captioners.first.mostly-raw.long"]
    assert (arm.captioners, arm.shear, arm.mix.raw_probability) == (CAPTIONERS, "first", 0.8)
    assert [step.filter for step in arm.filters] == ["min_words"]


def test_arms_that_mean_the_same_are_made_once(arms):
    mixes = {"uniform": "uniform", "mostly-raw": {"raw_probability": 0.8}, "again": {"raw_probability": 0.8}}
    shears = {"first": ["first_sentence"], "same": ["first_sentence"]}
    assert arms({"captioners": [[], ["a"], ["a"]], "shears": ["first", "same"], "mixes": mixes}, shears=shears) == [
        "raw-only",
        "a.first",
        "a.first.mostly-raw",
    ]


def test_a_value_that_is_added_renames_no_arm(arms):
    grid = {"captioners": [["a"], {"subsets": "cumulative", "of": ["a", "b", "c"]}]}
    before = arms(grid)
    trainers = {
        name: {"model": "picture-book", "steps": steps, "batch_size": 4} for name, steps in [("s", 2), ("l", 3)]
    }
    larger = {
        "captioners": [[], {"subsets": "each"}, *grid["captioners"], "all", ["b", "c", "d"]],
        "shears": ["first", "none"],
        "mixes": {"one-by-one": "concatenate", "uniform": "uniform"},
        "filters": {"long": [{"min_words": 3}], "unfiltered": []},
        "trainers": ["l", "s"],
        "seeds": [0, 5],
        "limit": 1000,
    }
    after = arms(larger, trainers=trainers, captioners=(*CAPTIONERS, "e"))
    assert set(before) < set(after)
    assert "3-captioners.none" in before
    assert "b-and-c-and-d.first.one-by-one.long.l-seed-5" in after
    assert len(set(after)) == len(after)


def test_many_long_names_of_captioners_are_counted_and_hashed(arms):
    names = [f"captioner-with-a-long-name-{number}" for number in range(5)]
    (name,) = arms({"captioners": [names[1:]]}, captioners=names)
    assert re.fullmatch(r"4-captioners-[0-9a-f]{8}\.none", name)


def test_weights_are_taken_for_an_arms_own_captioners(grid_config):
    weights = {"raw": 1, "a": 2, "b": 3}
    grid = {"captioners": [[], ["a"], ["a", "b"]], "mixes": {"heavy": {"weights": weights, "sub_caption": True}}}
    mixes = {recipe.name: recipe.mix for recipe in grid_config(grid).expanded_recipes()}
    assert mixes["a.none.heavy"].weights == {"raw": 1, "a": 2}
    assert mixes["a-and-b.none.heavy"].weights == weights
    assert mixes["raw-only.heavy"] == MixSettings(sub_caption=True)


def test_recipes_and_a_grid_stand_side_by_side(arms):
    assert arms({"captioners": [["a"]]}, recipes={"plain": {"captioners": []}}) == ["plain", "a.none"]


def test_seeds_of_the_grid_of_a_recipe_and_of_the_command_line(grid_config):
    def seeds(**changes):
        recipes = {"r": {"captioners": [], "seeds": [7]}, "q": {"captioners": []}}
        config = grid_config({"captioners": [[]], "seeds": [3, 4]}, recipes=recipes, **changes)
        return [(recipe.name, recipe.seed) for recipe in config.expanded_recipes()]

    assert seeds() == [("r", 7), ("q", 0), ("raw-only", 3), ("raw-only-seed-4", 4)]
    assert seeds(seeds=[1]) == [("r", 1), ("q", 1), ("raw-only", 1)]


@pytest.mark.parametrize(
    ("grid", "changes", "said"),
    [
        ({"captioners": [["x"]]}, {}, 'grid.captioners.0: there is no captioner "x"; allowed: a, b, c, d'),
        ({"captioners": [[], {"subsets": "each", "of": ["x"]}]}, {}, 'grid.captioners.1: there is no captioner "x"'),
        ({"captioners": [["a", "a"]]}, {}, "grid.captioners.0: ['a', 'a'] names a captioner twice"),
        ({"captioners": ["a"]}, {}, 'grid.captioners.0: "a" is not a set of captioners: write [a]'),
        ({"captioners": [{"subsets": "evry"}]}, {}, "grid.captioners.0.subsets: 'evry' is wrong"),
        ({"captioners": {"subsets": "up_to"}}, {}, "grid.captioners.0: write {subsets: up_to, most: 2}"),
        ({"captioners": {"subsets": "all", "mots": 2}}, {}, 'did you mean "most"?'),
        ({"captioners": []}, {}, "grid.captioners"),
        ({}, {}, "grid.captioners: this key is required"),
        ({"captioners": [[]], "shear": ["none"]}, {}, 'grid.shear: there is no key "shear" here; allowed:'),
        ({"captioners": [["a"]], "shears": ["frist"]}, {}, 'did you mean "first"?'),
        ({"captioners": [[]], "trainers": ["big"]}, {}, 'grid.trainers: there is no trainer "big"; allowed: small'),
        ({"captioners": [[]], "evaluation_sets": ["x"]}, {}, 'grid.evaluation_sets: there is no evaluation set "x"'),
        ({"captioners": [[]], "seeds": [1, 1]}, {}, "grid.seeds: [1, 1] contains a seed twice"),
        ({"captioners": [["a"]], "mixes": {"h": {"weights": {"raw": 1}}}}, {}, "grid.mixes.h.weights: a has no weight"),
        (
            {"captioners": [["a"], ["b"]], "mixes": {"h": {"weights": {"raw": 0, "a": 0, "b": 1}}}},
            {},
            "grid.mixes.h.weights: with a every weight is 0",
        ),
        (
            {"captioners": [[]], "mixes": {"x": "concatenate"}, "filters": {"unfiltered": [], "x": ["no_empty"]}},
            {},
            None,
        ),
        (
            {
                "captioners": [[]],
                "mixes": {"x": "concatenate", "uniform": "uniform"},
                "filters": {"unfiltered": [], "x": ["no_empty"]},
            },
            {},
            'grid: two of its arms would have the name "raw-only.x"',
        ),
        ({"captioners": [[]]}, {"recipes": {"raw-only": {"captioners": []}}}, 'grid: it makes an arm "raw-only"'),
        (None, {}, "recipes: there are none, and there is no grid either"),
    ],
)
def test_a_wrong_grid_is_refused_with_the_keys_path(grid_config, refused, grid, changes, said):
    if said is None:
        assert len(grid_config(grid, **changes).expanded_recipes()) == 2
        return
    message = refused(grid, **changes)
    assert f".yaml: {said.split(':')[0]}" in message or "did you mean" in said
    assert said in message
    assert "\n" not in message


def test_more_trainings_than_the_limit_are_refused_with_what_would_bring_them_down(refused, arms):
    grid = {"captioners": [[], {"subsets": "all"}], "shears": ["none", "first"], "seeds": [0, 1, 2]}
    message = refused(grid)
    assert "it makes 93 trainings (31 arms x 3 seeds), more than its limit of 64" in message
    assert "24 with {subsets: cumulative} for captioners, 48 with one shear, 31 with one seed" in message
    assert len(arms({**grid, "limit": 93})) == 93


def test_a_grid_of_billions_is_refused_at_once(refused):
    names = [f"c{number}" for number in range(40)]
    message = refused({"captioners": {"subsets": "all"}, "seeds": [0, 1]}, captioners=names)
    assert f"it makes {2 * (2**40 - 1):,} trainings" in message
    assert "80 with {subsets: cumulative} for captioners" in message


def test_the_demos_grid_makes_no_caption_that_the_demo_has_made():
    demo, grid = load_config(DEMO_CONFIG), load_config(DEMO_CONFIG.with_name("demo-grid.yaml"))
    for shared in ("store", "pairs", "shard_size", "captioners", "shears", "evaluation_sets"):
        assert getattr(grid, shared) == getattr(demo, shared)
    assert [recipe.name for recipe in grid.expanded_recipes() if recipe.seed == 0] == [
        "raw-only",
        "tiny-llava.none",
        "tiny-llava.first-sentence",
        "4-captioners.none",
        "4-captioners.first-sentence",
    ]
    assert len(grid.expanded_recipes()) == 10
