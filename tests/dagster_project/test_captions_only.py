"""Factories whose recipes end before a checkpoint, or before its measurement: they show what there is, and run."""

import subprocess
import sys

import dagster as dg
import pytest
from small_factory import picture, settings_of

from caploom.config.factory import Factory
from caploom.questions.results.made import made_so_far
from caploom.questions.status.factory_status import factory_status
from dagster_project.definitions import definitions_of


@pytest.fixture
def captions_only(tmp_path, write_config):
    """The YAML of a factory with pictures, a captioner and a shear, and nothing else."""
    (tmp_path / "photos").mkdir()
    for number in range(6):
        picture(number).resize((64, 64)).save(tmp_path / "photos" / f"{number}.png")
    return write_config(
        {
            "name": "photos",
            "store": "store",
            "pairs": {"reader": "image_folder", "root": "photos"},
            "captioners": {"tiny": {"model": "demo:tiny-llava", "prompt": "Describe <image> in English:"}},
            "shears": {"first": ["first_sentence"]},
        }
    )


def keys_of(definitions):
    return {key.to_user_string() for key in definitions.resolve_all_asset_keys()}


def test_a_factory_of_captions_has_no_assets_of_training_or_measuring(captions_only):
    definitions = definitions_of(captions_only)
    dg.Definitions.validate_loadable(definitions)
    assert keys_of(definitions) == {
        "settings",
        "raw_pairs",
        "captions/tiny",
        "sheared/tiny",
        "sheared_captions",
        "training_set",
    }
    assert not {job.name for job in definitions.jobs} & {"report"}
    assert not {each.name for each in (*definitions.sensors, *definitions.schedules)} & {
        "retrain",
        "retrain_when_grown",
        "report_new_measurements",
    }


def test_it_runs_to_its_training_sets_and_says_how_to_go_on(captions_only, tmp_path):
    ran = subprocess.run(
        [sys.executable, "-m", "dagster_project.run", "--config", str(captions_only)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert "| tiny      | 6        | 0      |" in ran.stdout
    assert f"caploom export {captions_only} first" in ran.stdout
    factory = Factory.from_yaml(captions_only)
    [recipe] = made_so_far(factory).recipes
    assert (recipe.images, recipe.captions, recipe.trained) == (6, 6, None)
    status = factory_status(factory)
    assert status.is_current
    assert {slot.asset for slot in status.slots} == {"raw_pairs", "captions/tiny", "sheared_captions", "training_set"}


def test_without_evaluation_sets_recipes_end_at_their_checkpoints(write_source, write_config):
    settings = settings_of(write_source(4))
    del settings["evaluation_sets"]
    keys = keys_of(definitions_of(write_config(settings)))
    assert "checkpoint" in keys
    assert not keys & {"retrieval_metrics", "ablation_report"}


def test_a_recipe_without_a_trainer_beside_one_with_leaves_its_steps_out(write_source, write_config, instance):
    recipes = {"trained": {"captioners": []}, "merged": {"captioners": [], "trainer": "none"}}
    path = write_config(settings_of(write_source(4), recipes=recipes))
    definitions = definitions_of(path)
    assets = [each for each in definitions.assets or [] if isinstance(each, dg.AssetsDefinition | dg.AssetSpec)]
    ran = dg.materialize(
        assets,
        selection=["checkpoint", "retrieval_metrics"],
        partition_key="merged",
        instance=instance,
        resources=definitions.resources,
    )
    assert ran.success
    assert not ran.get_asset_materialization_events()
    slots = {(slot.asset, slot.partition) for slot in factory_status(Factory.from_yaml(path)).slots}
    assert ("training_set", "merged") in slots
    assert not {("checkpoint", "merged"), ("retrieval_metrics", "merged")} & slots
    assert ("retrieval_metrics", "trained") in slots
