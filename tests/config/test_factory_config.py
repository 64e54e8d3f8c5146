from pathlib import Path

import pytest
from small_factory import settings_of

from caploom.config.factory_config import DEMO_CONFIG, load_config
from caploom.errors import ConfigError


@pytest.fixture
def refused(write_source, write_config):
    """The message that a changed YAML is refused with."""

    def message(**changes):
        with pytest.raises(ConfigError) as error:
            load_config(write_config(settings_of(write_source(1), **changes)))
        return str(error.value)

    return message


def test_the_shipped_configurations_are_well_formed():
    for path in DEMO_CONFIG.parent.glob("*.yaml"):
        assert load_config(path).expanded_recipes()


def test_an_unknown_key_is_refused_with_its_path_and_what_is_allowed(refused):
    message = refused(captioners={"a": {"model": "demo:tiny-llava", "prompt": "x", "decoding": {"max_new_token": 3}}})
    assert "captioners.a.decoding.max_new_token" in message
    assert 'did you mean "max_new_tokens"' in message


def test_an_unknown_key_of_a_reader_is_refused_with_the_readers_keys(refused):
    message = refused(pairs={"reader": "image_captions", "root": "x", "captions": "y.json", "rot": "z"})
    assert "pairs.rot:" in message
    assert 'did you mean "root"' in message


def test_a_wrong_value_is_refused_with_its_path_the_value_and_what_is_allowed(refused):
    message = refused(shard_size=-3)
    assert "shard_size" in message
    assert "-3" in message
    assert "greater than 0" in message


def test_a_missing_key_is_named(refused):
    assert "trainers.small.steps: this key is required" in refused(trainers={"small": {"model": "picture-book"}})


def test_an_unknown_captioner_in_a_recipe_lists_the_known_ones(refused):
    message = refused(recipes={"r": {"captioners": ["colour"]}})
    assert 'recipes.r.captioners: there is no captioner "colour"; allowed: colours' in message


def test_an_unknown_shear_rule_lists_the_known_ones(refused):
    message = refused(shears={"first": ["first_sentense"]})
    assert "shears.first" in message
    assert 'did you mean "first_sentence"' in message


@pytest.mark.parametrize(
    "step",
    [{"max_tokens": 0}, {"max_tokens": "many"}, {"max_words": 3, "wrds": 2}, "max_words", {"first_sentence": {}}],
)
def test_a_rule_with_a_wrong_parameter_is_refused(refused, step):
    assert "shears.first" in refused(shears={"first": [step]})


def test_a_captioner_may_not_be_called_raw(refused):
    assert '"raw" names the raw captions' in refused(captioners={"raw": {"model": "demo:tiny-llava", "prompt": "x"}})


def test_sampling_settings_without_sampling_are_refused(refused):
    captioner = {"model": "demo:tiny-llava", "prompt": "x", "decoding": {"temperature": 0.5}}
    assert "sample: true" in refused(captioners={"a": captioner})


def test_remote_code_needs_a_pinned_revision(refused):
    assert "pin its revision" in refused(
        captioners={"a": {"model": "some/model", "prompt": "x", "trust_remote_code": True}}
    )


def test_a_key_given_twice_is_refused(tmp_path):
    path = tmp_path / "twice.yaml"
    path.write_text("name: a\nname: b\n")
    with pytest.raises(ConfigError, match='the key "name" is there twice'):
        load_config(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [("[1, 2]", "mapping"), ("a: [", "not valid YAML"), ("", "mapping")],
)
def test_a_file_that_is_no_mapping_is_refused(tmp_path, text, message):
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        load_config(path)


def test_a_missing_file_is_refused_by_name(tmp_path):
    with pytest.raises(ConfigError, match=r"nowhere\.yaml: there is no such file"):
        load_config(tmp_path / "nowhere.yaml")


def test_relative_paths_start_from_the_yaml(write_source, write_config):
    path = write_config(settings_of(write_source(1), store="here/store"))
    assert load_config(path).store == Path(path).parent / "here" / "store"


def test_seeds_expand_into_arms_and_the_first_keeps_the_plain_name(write_source, write_config):
    config = load_config(write_config(settings_of(write_source(1))), seeds=[0, 7])
    assert [recipe.name for recipe in config.expanded_recipes()] == [
        "raw-only",
        "raw-only-seed-7",
        "sheared",
        "sheared-seed-7",
    ]
    assert config.recipe("sheared-seed-7").seed == 7
    assert config.recipe("sheared").captioners == ("colours",)


CAPTIONER = {"model": "some/model", "prompt": "Describe:"}
SERVER = {**CAPTIONER, "backend": "openai", "url": "http://127.0.0.1:8000/v1"}


@pytest.mark.parametrize(
    ("captioner", "sentence"),
    [
        (
            {**SERVER, "backend": "opnai"},
            'a.backend: there is no backend "opnai"; allowed: transformers, openai, import',
        ),
        ({**SERVER, "url": "ftp://host/v1"}, "a.url: it must be an http(s) address"),
        ({**SERVER, "url": None}, "a.url: None is wrong"),
        ({**CAPTIONER, "device": []}, "a: device is an empty list"),
        ({**CAPTIONER, "device_map": "auto", "device": "cuda:1"}, "a: device_map spreads the model over all GPUs"),
        ({**CAPTIONER, "trust_remote_code": True}, "a: trust_remote_code: true runs the repository's code: pin its"),
        ({**CAPTIONER, "decoding": {"num_beams": 3, "stop_at": "shear"}}, "a.decoding: a beam search cannot stop"),
        ({**CAPTIONER, "decoding": {"num_beams": 3, "sample": True}}, "a.decoding: sample: true and num_beams above"),
        ({**CAPTIONER, "decoding": {"stop_strings": [""]}}, "a.decoding: stop_strings contains an empty string"),
        ({**CAPTIONER, "stops": [["first_sentence"]]}, "a: stops is filled in by the factory"),
        ({"backend": "import", "captions": "a.json", "rot": "."}, 'a.rot: there is no key "rot" here'),
    ],
)
def test_a_captioner_that_makes_no_sense_is_refused_with_its_key(refused, captioner, sentence):
    assert f"captioners.{sentence}" in refused(captioners={"a": captioner})


def test_a_password_in_an_address_is_refused_and_not_repeated(refused):
    message = refused(captioners={"a": {**SERVER, "url": "http://me:secret@host/v1"}})
    assert "without user or password" in message
    assert "secret" not in message


def test_a_recipe_can_hold_its_shear_itself(write_source, write_config):
    recipes = {"r": {"captioners": "all", "shear": ["first_sentence", {"max_words": 7}]}}
    config = load_config(write_config(settings_of(write_source(1), recipes=recipes)))
    steps = config.shear_steps(config.recipe("r").shear)
    assert [(step.rule, step.parameters) for step in steps] == [("first_sentence", {}), ("max_words", {"words": 7})]


def test_a_wrong_rule_in_a_recipe_s_own_shear_is_named(refused):
    message = refused(recipes={"r": {"captioners": "all", "shear": ["first_sentense"]}})
    assert "shears.r.shear" in message
    assert 'did you mean "first_sentence"' in message


def without(write_source, *keys, **changes):
    return {key: value for key, value in settings_of(write_source(1), **changes).items() if key not in keys}


def test_pairs_and_captioners_alone_are_a_factory(write_source, write_config):
    config = load_config(write_config(without(write_source, "trainers", "evaluation_sets", "recipes")))
    [recipe] = config.expanded_recipes()
    assert (recipe.name, recipe.captioners, recipe.shear) == ("first", ("colours",), "first")
    assert not recipe.is_trained
    assert not recipe.is_measured


def test_without_shears_too_captions_stay_whole(write_source, write_config):
    config = load_config(write_config(without(write_source, "trainers", "evaluation_sets", "recipes", "shears")))
    assert [(recipe.name, recipe.shear) for recipe in config.expanded_recipes()] == [("whole", "none")]


def test_a_recipe_ends_where_the_yaml_has_nothing_more_for_it(write_source, write_config):
    recipes = {"trained": {"captioners": "all"}, "merged": {"captioners": "all", "trainer": "none"}}
    config = load_config(write_config(without(write_source, "evaluation_sets", recipes=recipes)))
    assert [(each.name, each.is_trained, each.is_measured) for each in config.expanded_recipes()] == [
        ("trained", True, False),
        ("merged", False, False),
    ]


def test_a_grid_without_trainers_spans_training_sets(write_source, write_config):
    settings = without(write_source, "trainers", "evaluation_sets", "recipes")
    grid = {"captioners": [[], "all"], "shears": ["none", "first"]}
    config = load_config(write_config({**settings, "grid": grid}))
    assert [recipe.name for recipe in config.expanded_recipes()] == ["raw-only", "colours.none", "colours.first"]
    assert not any(recipe.is_trained for recipe in config.expanded_recipes())


def test_trainers_without_recipes_would_train_nothing(refused):
    assert "recipes: there are none" in refused(recipes={})


def test_what_is_not_trained_cannot_be_fine_tuned(refused):
    finetune = {"target_set": "t", "trainer": "small"}
    recipes = {"r": {"captioners": [], "trainer": "none", "finetune": finetune}}
    pairs = {"reader": "image_captions", "root": "x", "captions": "y.json"}
    assert "there is no checkpoint to fine-tune" in refused(recipes=recipes, target_sets={"t": pairs})


def test_no_trainer_may_be_called_none(refused):
    assert '"none" stands for no trainer' in refused(trainers={"none": {"model": "picture-book", "steps": 2}})
