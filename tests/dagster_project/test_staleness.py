"""Editing the YAML makes stale the partitions that depend on the edit, and nothing else; see e2e for the UI itself."""

import copy

import dagster as dg
import pytest
import yaml

from caploom.config.factory import Factory
from caploom.config.factory_config import DEMO_CONFIG
from dagster_project.definitions import definitions_of
from dagster_project.settings import SETTINGS, observe_settings, settings_parts

ALL = "all partitions"
LLAVA, OTTER = "tiny-llava", "tiny-otter"
RAW_PAIRS = dg.AssetKey("raw_pairs")
SHEARED = {f"sheared/{name}" for name in (LLAVA, OTTER, "tiny-qwen-vl", "tiny-minigpt-4")}
DATA = ("sheared_captions", "training_set")
RECIPES = ["raw-only", "one-captioner", "four-captioners-unsheared", "four-captioners"]


class Graph:
    """The assets of a configuration: what makes them stale."""

    def __init__(self, path):
        self.graph = definitions_of(path).resolve_asset_graph()
        self.parts = settings_parts(Factory.from_yaml(path))
        self.assets = {key for key in self.graph.get_all_asset_keys() if key != SETTINGS}

    def code_versions(self):
        return {key.to_user_string(): self.graph.get(key).code_version for key in self.assets}

    def depending_on(self, part):
        """The assets and partitions that depend on a piece of the YAML."""
        found = set()
        settings = self.graph.get(SETTINGS)
        subset = settings.partitions_def.subset_with_partition_keys([part])
        for child in settings.child_keys:
            mapping = self.graph.get_partition_mapping(child, SETTINGS)
            below = mapping.get_downstream_partitions_for_partitions(
                subset, settings.partitions_def, self.graph.get(child).partitions_def
            )
            found |= {(child.to_user_string(), key) for key in below.get_partition_keys()}
        return found


def stale(before, after):
    """What the edit makes stale of what there was."""
    old, new = before.code_versions(), after.code_versions()
    found = {(key, ALL) for key in old.keys() & new.keys() if old[key] != new[key]}
    for part in before.parts.keys() & after.parts.keys():
        if before.parts[part] != after.parts[part]:
            found |= after.depending_on(part)
    return found


@pytest.fixture
def graph_of(tmp_path):
    def graph(settings):
        path = tmp_path / "factory.yaml"
        path.write_text(yaml.safe_dump(settings, sort_keys=False))
        return Graph(path)

    return graph


@pytest.fixture
def demo():
    return yaml.safe_load(DEMO_CONFIG.read_text())


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
        (("captioners", LLAVA, "prompt"), "What is in <image>?", {("captions/tiny-llava", ALL)}),
        (("captioners", LLAVA, "seed"), 5, {("captions/tiny-llava", ALL)}),
        (("captioners", LLAVA, "batch_size"), 7, set()),
        (("shears", "first-sentence"), ["first_sentence"], {(asset, "first-sentence") for asset in SHEARED}),
        (
            ("recipes", "four-captioners", "captioners"),
            [LLAVA, OTTER],
            {("sheared_captions", "four-captioners"), ("training_set", "four-captioners")},
        ),
        (("recipes", "four-captioners", "shear"), "none", {("sheared_captions", "four-captioners")}),
        (("recipes", "four-captioners", "mix"), {"raw_probability": 0.8}, {("training_set", "four-captioners")}),
        (("recipes", "one-captioner", "filters"), ["no_empty"], {("training_set", "one-captioner")}),
        (("training_json",), False, {("training_set", recipe) for recipe in RECIPES}),
        (("trainers", "picture-book", "steps"), 300, {("checkpoint", recipe) for recipe in RECIPES}),
        (("trainers", "picture-book", "workers"), 1, set()),
        (("seeds",), [3], {("checkpoint", recipe) for recipe in RECIPES}),
        (("evaluation_sets", "scenes", "seed"), 9, {("retrieval_metrics", recipe) for recipe in RECIPES}),
        (("pairs", "seed"), 9, {("raw_pairs", ALL)}),
        (("name",), "other", {("ablation_report", ALL)}),
        (("owners",), ["team:vision"], set()),
    ],
)
def test_an_edit_makes_stale_exactly_its_own_partitions(graph_of, demo, path, value, expected):
    before, after = graph_of(demo), graph_of(edited(demo, *path, value=value))
    assert before.assets == after.assets
    assert stale(before, after) == expected


def test_deleting_a_captioner_takes_its_assets_and_touches_only_the_recipes_that_have_it(graph_of, demo):
    before = graph_of(demo)
    without = copy.deepcopy(demo)
    del without["captioners"][OTTER]
    after = graph_of(without)
    assert {key.to_user_string() for key in before.assets - after.assets} == {f"captions/{OTTER}", f"sheared/{OTTER}"}
    assert not after.assets - before.assets
    having = {"four-captioners", "four-captioners-unsheared"}
    assert stale(before, after) == {(asset, recipe) for asset in DATA for recipe in having}


def test_a_new_captioner_makes_no_other_captions_stale(graph_of, demo):
    before = graph_of(demo)
    after = graph_of(edited(demo, "captioners", "second", value={**demo["captioners"][LLAVA], "seed": 1}))
    assert {key.to_user_string() for key in after.assets - before.assets} == {"captions/second", "sheared/second"}
    having = {"four-captioners", "four-captioners-unsheared"}
    assert stale(before, after) == {(asset, recipe) for asset in DATA for recipe in having}


def test_a_second_stage_and_its_settings_belong_to_the_recipes_checkpoint(graph_of, demo):
    tuned = copy.deepcopy(demo)
    tuned["target_sets"] = {"more": {**demo["pairs"], "seed": 7}}
    tuned["trainers"]["second"] = {**demo["trainers"]["picture-book"], "steps": 30}
    for recipe in tuned["recipes"].values():
        recipe["trainer"] = "picture-book"
    plain = graph_of(tuned)
    tuned["recipes"]["raw-only"]["finetune"] = {"target_set": "more", "trainer": "second"}
    before = graph_of(tuned)
    assert stale(plain, before) == {("checkpoint", "raw-only")}
    for path, value in ((("trainers", "second", "steps"), 40), (("target_sets", "more", "seed"), 8)):
        assert stale(before, graph_of(edited(tuned, *path, value=value))) == {("checkpoint", "raw-only")}


def test_a_recipe_depends_only_on_the_sheared_captions_of_its_own_captioners(graph_of, demo):
    graph = graph_of(demo).graph
    child = dg.AssetKey("sheared_captions")
    parents = {
        recipe: {
            (parent.to_user_string(), key)
            for parent in graph.get(child).parent_keys - {SETTINGS, RAW_PAIRS}
            for key in graph.get_partition_mapping(child, parent)
            .get_upstream_mapped_partitions_result_for_partitions(
                graph.get(child).partitions_def.subset_with_partition_keys([recipe]),
                graph.get(child).partitions_def,
                graph.get(parent).partitions_def,
            )
            .partitions_subset.get_partition_keys()
        }
        for recipe in RECIPES
    }
    assert parents["raw-only"] == set()
    assert parents["one-captioner"] == {("sheared/tiny-llava", "first-sentence")}
    assert parents["four-captioners"] == {(asset, "first-sentence") for asset in SHEARED}


def test_settings_are_observed_once_a_change(demo, tmp_path):
    path = tmp_path / "factory.yaml"
    path.write_text(yaml.safe_dump(demo))
    instance = dg.DagsterInstance.ephemeral()
    assert set(observe_settings(instance, Factory.from_yaml(path))) == set(settings_parts(Factory.from_yaml(path)))
    assert observe_settings(instance, Factory.from_yaml(path)) == []
    path.write_text(yaml.safe_dump(edited(demo, "recipes", "raw-only", "mix", value={"raw_probability": 0.5})))
    assert observe_settings(instance, Factory.from_yaml(path)) == ["mix.raw-only"]
