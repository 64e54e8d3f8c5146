"""Editing the YAML makes stale what depends on the edit, and nothing else."""

import copy

import pytest
import yaml

from caploom.config import DEMO_CONFIG
from dagster_project.definitions import definitions_of

DATA = {"sheared_captions", "training_set"}
EXPERIMENTS = {"checkpoint", "retrieval_metrics"}


@pytest.fixture
def code_versions(tmp_path):
    """The code version of each asset of a configuration."""

    def versions(settings):
        path = tmp_path / "factory.yaml"
        path.write_text(yaml.safe_dump(settings, sort_keys=False))
        graph = definitions_of(path).resolve_asset_graph()
        return {key.to_user_string(): graph.get(key).code_version for key in graph.get_all_asset_keys()}

    return versions


@pytest.fixture
def demo():
    return yaml.safe_load(DEMO_CONFIG.read_text())


def changed(before, after):
    return {key for key in before.keys() & after.keys() if before[key] != after[key]}


def edited(settings, *path, value):
    settings = copy.deepcopy(settings)
    place = settings
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return settings


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        (("captioners", "tiny-llava", "prompt"), "What is in <image>?", {"captions/tiny-llava"}),
        (("captioners", "tiny-llava", "seed"), 5, {"captions/tiny-llava"}),
        (("captioners", "tiny-llava", "batch_size"), 7, set()),
        (("shears", "first-sentence"), ["first_sentence"], {"sheared_captions"}),
        (("recipes", "four-captioners", "mix"), {"raw_probability": 0.8}, {"training_set"}),
        (("recipes", "four-captioners", "filters"), ["no_empty", {"min_words": 3}], {"training_set"}),
        (("trainers", "picture-book", "steps"), 300, {"checkpoint"}),
        (("trainers", "picture-book", "workers"), 1, set()),
        (("seeds",), [3], {"checkpoint"}),
        (("evaluation_sets", "scenes", "seed"), 9, {"retrieval_metrics"}),
        (("pairs", "seed"), 9, {"raw_pairs"}),
        (("name",), "other", set()),
    ],
)
def test_an_edit_makes_stale_exactly_its_own_assets(code_versions, demo, path, value, expected):
    before, after = code_versions(demo), code_versions(edited(demo, *path, value=value))
    assert before.keys() == after.keys()
    assert changed(before, after) == expected


def test_deleting_a_captioner_takes_its_asset_and_touches_only_the_recipes_that_have_it(code_versions, demo):
    before = code_versions(demo)
    without = copy.deepcopy(demo)
    del without["captioners"]["tiny-otter"]
    after = code_versions(without)
    assert before.keys() - after.keys() == {"captions/tiny-otter"}
    assert not after.keys() - before.keys()
    assert changed(before, after) == {"sheared_captions"}


def test_a_new_captioner_is_a_new_asset_and_makes_no_other_captions_stale(code_versions, demo):
    before = code_versions(demo)
    more = edited(demo, "captioners", "second-llava", value={**demo["captioners"]["tiny-llava"], "seed": 1})
    after = code_versions(more)
    assert after.keys() - before.keys() == {"captions/second-llava"}
    assert changed(before, after) == {"sheared_captions"}


def test_a_second_stage_and_its_settings_belong_to_the_checkpoint(code_versions, demo):
    tuned = copy.deepcopy(demo)
    tuned["target_sets"] = {"more": {**demo["pairs"], "seed": 7}}
    tuned["trainers"]["second"] = {**demo["trainers"]["picture-book"], "steps": 30}
    for recipe in tuned["recipes"].values():
        recipe["trainer"] = "picture-book"
    plain = code_versions(tuned)
    tuned["recipes"]["raw-only"]["finetune"] = {"target_set": "more", "trainer": "second"}
    before = code_versions(tuned)
    assert changed(plain, before) == {"checkpoint"}
    for path, value in (
        (("trainers", "second", "steps"), 40),
        (("target_sets", "more", "seed"), 8),
    ):
        assert changed(before, code_versions(edited(tuned, *path, value=value))) == {"checkpoint"}
