"""An edit of the YAML makes stale just what it touches, and outdated just what lies downstream: whole sets compared."""

import copy
import json
import shutil
import time
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner
from whole_factory import (
    edited,
    factory_of,
    make_data,
    make_recipe,
    make_whole,
    reader,
    settings_in,
    write_settings,
)

from caploom.cli import main
from caploom.questions.status.factory_status import State, factory_status
from caploom.questions.status.text import status_markdown, status_text
from caploom.report.make import make_report
from caploom.stages.shards import create_new_shards

SHARDS = ("shard-00000", "shard-00001")
RECIPES = ("raw-only", "one", "both")
CHAIN = ("sheared_captions", "training_set", "checkpoint", "retrieval_metrics")
CAPTIONED = {"one", "both"}


@pytest.fixture
def own(own_whole):
    """A factory of the test's own, in which everything is made."""
    return own_whole


def standing(settings):
    """The state of every slot that is not current, by its label."""
    return {slot.label: slot.state for slot in factory_status(factory_of(settings)).slots if slot.state != "current"}


def of_shards(*assets):
    return {f"{asset} [{shard}]" for asset in assets for shard in SHARDS}


def below(stage, recipes):
    """The slots of recipes from a stage of the chain on."""
    return {f"{asset} [{recipe}]" for asset in CHAIN[CHAIN.index(stage) :] for recipe in recipes}


def expected(stale=(), outdated=(), missing=()):
    return (
        dict.fromkeys(stale, State.STALE)
        | dict.fromkeys(outdated, State.OUTDATED)
        | dict.fromkeys(missing, State.MISSING)
    )


def causes(settings, label):
    (slot,) = (slot for slot in factory_status(factory_of(settings)).slots if slot.label == label)
    return [cause.text for cause in slot.causes]


REPORT = {"ablation_report"}


def at(stage, recipes):
    return {f"{stage} [{recipe}]" for recipe in recipes}


EDITS = [
    ("nothing", None, None, expected()),
    ("captioners.first.batch_size", 2, None, expected()),
    ("trainers.small.workers", 1, None, expected()),
    (
        "captioners.first.prompt",
        "Say <image>:",
        ("captions/first [shard-00000]", 'prompt changed from "Describe <image>:" to "Say <image>:"'),
        expected(of_shards("captions/first"), below("sheared_captions", CAPTIONED) | REPORT),
    ),
    (
        "captioners.second.seed",
        3,
        ("captions/second [shard-00001]", "seed changed from 0 to 3"),
        expected(of_shards("captions/second"), below("sheared_captions", {"both"}) | REPORT),
    ),
    (
        "shears.sentence",
        ["first_sentence", {"max_words": 5}],
        (
            "sheared_captions [one]",
            "shear sentence: rules changed from [first_sentence] to [first_sentence, max_words {words: 5}]",
        ),
        expected(at("sheared_captions", {"one"}), below("training_set", {"one"}) | REPORT),
    ),
    (
        "recipes.both.shear",
        "sentence",
        ("sheared_captions [both]", 'shear changed from "words" to "sentence"'),
        expected(at("sheared_captions", {"both"}), below("training_set", {"both"}) | REPORT),
    ),
    (
        "recipes.both.mix",
        {"raw_probability": 0.8},
        ("training_set [both]", 'mix.strategy changed from "uniform" to "raw_probability"'),
        expected(at("training_set", {"both"}), below("checkpoint", {"both"}) | REPORT),
    ),
    (
        "recipes.one.filters",
        [{"min_words": 2}],
        ("training_set [one]", 'filters changed from [] to [{"filter": "min_words", "min_words": 2}]'),
        expected(at("training_set", {"one"}), below("checkpoint", {"one"}) | REPORT),
    ),
    (
        "training_json",
        False,
        ("training_set [one]", "training_json changed from true to false"),
        expected(at("training_set", RECIPES), below("checkpoint", RECIPES) | REPORT),
    ),
    (
        "trainers.small.steps",
        2,
        ("checkpoint [one]", "trainer.steps changed from 1 to 2"),
        expected(at("checkpoint", RECIPES), below("retrieval_metrics", RECIPES) | REPORT),
    ),
    (
        "seeds",
        [3],
        ("checkpoint [raw-only]", "seed changed from 0 to 3"),
        expected(at("checkpoint", RECIPES), below("retrieval_metrics", RECIPES) | REPORT),
    ),
    (
        "seeds",
        [0, 1],
        ("checkpoint [one-seed-1]", "never made"),
        expected((), REPORT, below("checkpoint", {f"{recipe}-seed-1" for recipe in RECIPES})),
    ),
    ("name", "other", ("ablation_report", 'name changed from "whole" to "other"'), expected(REPORT)),
]


@pytest.mark.parametrize(("path", "value", "said", "states"), EDITS, ids=[f"{e[0]}={e[1]}" for e in EDITS])
def test_an_edit_names_just_what_it_makes_stale(whole, path, value, said, states):
    settings = whole if path == "nothing" else edited(whole, *path.split("."), value=value)
    assert standing(settings) == states
    if said is not None:
        label, cause = said
        assert cause in causes(settings, label)


def test_another_evaluation_set_makes_the_metrics_stale(whole, tmp_path):
    (tmp_path / "less.json").write_text(
        '[{"image": "20.png", "caption": "one"}, {"image": "21.png", "caption": "two"}]'
    )
    settings = edited(whole, "evaluation_sets", "held-out", "captions", value=str(tmp_path / "less.json"))
    assert standing(settings) == expected({"evaluation_sets [held-out]", *at("retrieval_metrics", RECIPES)}, REPORT)
    (cause,) = causes(settings, "retrieval_metrics [one]")
    assert cause.startswith("evaluation set held-out: captions changed from ")
    gone = edited(whole, "evaluation_sets", "held-out", "root", value=str(tmp_path / "none"))
    assert any("the image root is not a folder" in cause for cause in causes(gone, "evaluation_sets [held-out]"))


def test_a_further_evaluation_set_is_missing_and_makes_the_metrics_stale(whole):
    settings = edited(whole, "evaluation_sets", "second", value=whole["pairs"])
    assert standing(settings) == expected(at("retrieval_metrics", RECIPES), REPORT, {"evaluation_sets [second]"})
    assert causes(settings, "retrieval_metrics [one]") == ["evaluation set second added"]


def test_a_captioner_that_is_added_touches_the_recipes_that_take_it(whole):
    settings = edited(whole, "captioners", "third", value={**whole["captioners"]["first"], "seed": 7})
    both = {"sheared_captions [both]", "training_set [both]"}
    states = expected(both, below("checkpoint", {"both"}) | REPORT, of_shards("captions/third"))
    assert standing(settings) == states
    assert causes(settings, "sheared_captions [both]") == [
        "captioner third added",
        "waits for captions/third (2 of them)",
    ]


def test_a_captioner_that_is_removed_touches_the_recipes_that_had_it(whole):
    settings = copy.deepcopy(whole)
    del settings["captioners"]["second"]
    both = {"sheared_captions [both]", "training_set [both]"}
    assert standing(settings) == expected(both, below("checkpoint", {"both"}) | REPORT)
    assert causes(settings, "sheared_captions [both]") == ["captioner second removed"]


def test_a_new_recipe_is_missing_and_a_removed_one_touches_the_report(whole):
    more = edited(whole, "recipes", "new", value={"captioners": ["second"], "shear": "words"})
    assert standing(more) == expected((), REPORT, below("sheared_captions", {"new"}))
    less = copy.deepcopy(whole)
    del less["recipes"]["one"]
    assert standing(less) == expected(REPORT)
    assert causes(less, "ablation_report") == ["no longer made of retrieval_metrics [one]"]


def test_another_source_makes_everything_wait_for_its_shards(own):
    sources = Path(own["pairs"]["root"]).parent
    settings = edited(own, "pairs", value=reader(sources, "more-pairs"))
    captions = {"captions/first", "captions/second"}
    waiting = captions | below("sheared_captions", CAPTIONED) | below("training_set", RECIPES) | REPORT
    assert standing(settings) == expected({"raw_pairs"}, waiting)
    assert causes(settings, "raw_pairs")[0].startswith("pairs.root changed from ")
    create_new_shards(factory_of(settings))
    waiting = waiting - captions | of_shards("captions/first", "captions/second")
    assert standing(settings) == expected(of_shards("raw_pairs"), waiting)


def test_a_new_shard_is_missing_and_what_reads_all_shards_waits(tmp_path):
    make_whole(tmp_path)
    own = settings_in(tmp_path)
    rows = json.loads((tmp_path / "pairs.json").read_text())
    (tmp_path / "pairs.json").write_text(json.dumps([*rows, {"image": "0.png", "caption": "said anew"}]))
    assert create_new_shards(factory_of(own)) == ["shard-00002"]
    new = {f"{asset} [shard-00002]" for asset in ("raw_pairs", "captions/first", "captions/second")}
    waiting = below("sheared_captions", CAPTIONED) | below("training_set", RECIPES) | REPORT
    assert standing(own) == expected((), waiting, new)
    make_data(factory_of(own))
    stale = at("sheared_captions", CAPTIONED) | at("training_set", RECIPES)
    assert standing(own) == expected(stale, below("checkpoint", RECIPES) | REPORT)
    assert causes(own, "sheared_captions [one]") == ["not yet made of captions/first [shard-00002]"]


def test_an_edit_that_is_carried_out_leaves_nothing_to_do_and_so_does_taking_it_back(own):
    settings = edited(own, "captioners", "first", "prompt", value="Now tell me at length of <image>:")
    factory = factory_of(settings)
    make_data(factory)
    stale = standing(settings)
    assert stale == expected(at("sheared_captions", CAPTIONED), below("training_set", CAPTIONED) | REPORT)
    assert causes(settings, "sheared_captions [one]") == ["new content of captions/first (2 of them)"]
    for recipe in sorted(CAPTIONED):
        make_recipe(factory, recipe)
    make_report(factory)
    assert status_text(factory_status(factory)) == "Everything is current."
    assert standing(own) == expected(REPORT)  # the newest report is of the other prompt
    assert causes(own, "ablation_report") == ["new content of retrieval_metrics (2 of them)"]


def test_captions_that_come_out_the_same_wake_nobody(own):
    settings = edited(own, "captioners", "first", "prompt", value="Depict <image>:")  # as many words
    make_data(factory_of(settings))
    status = factory_status(factory_of(settings))
    assert status.is_current
    assert "by content" in status_text(status)


def test_nothing_made_is_all_missing(tmp_path):
    settings = write_settings(tmp_path)
    slots = factory_status(factory_of(settings)).slots
    assert {slot.state for slot in slots} == {State.MISSING}
    assert not (tmp_path / "store" / "shards").exists()


def test_a_damaged_manifest_is_named_and_its_slot_is_stale(own, tmp_path):
    (manifest,) = (tmp_path / "store" / "training_set" / "one").glob("*/manifest.json")
    manifest.write_text("{")
    status = factory_status(factory_of(own))
    assert standing(own) == expected(at("training_set", {"one"}), below("checkpoint", {"one"}) | REPORT)
    assert str(manifest) in "".join(status.damaged)
    assert "damaged: " in status_text(status)


def test_nothing_is_written(whole, tmp_path):
    def listing():
        return sorted(str(path) for path in (tmp_path / "copy").rglob("*"))

    shutil.copytree(whole["store"], tmp_path / "copy")
    before = listing()
    settings = edited(edited(whole, "store", value=str(tmp_path / "copy")), "shears", "words", value=[{"max_words": 9}])
    factory_status(factory_of(settings))
    assert listing() == before


def test_the_command_says_it_in_few_lines(whole, tmp_path):
    def call(settings, *options):
        (tmp_path / "factory.yaml").write_text(yaml.safe_dump(settings))
        return CliRunner().invoke(main, ["status", str(tmp_path / "factory.yaml"), *options])

    assert call(whole, "--check").exit_code == 0
    assert call(whole).output == "Everything is current.\n"
    prompt = "<script>alert(1)</script>\x1b[31m " + "very " * 40
    settings = edited(whole, "captioners", "first", "prompt", value=prompt)
    done = call(settings, "--check")
    assert done.exit_code == 1
    assert "captions/first [shard-00000, shard-00001] stale: prompt changed from" in done.output
    assert "\x1b" not in done.output and max(map(len, done.output.splitlines())) < 250
    records = json.loads(call(settings, "--json").output)
    (first, *_) = [slot for slot in records["slots"] if slot["asset"] == "captions/first"]
    assert first["causes"][0]["after"] == prompt
    assert len(json.loads(call(settings, "--json", "--all").output)["slots"]) == sum(records["counts"].values())
    markdown = status_markdown(factory_status(factory_of(settings)))
    assert "<script>" not in markdown and "\\<script" not in markdown


def test_a_thousand_shards_are_one_line(tmp_path):
    settings = write_settings(tmp_path, shard_size=1)
    factory = factory_of(settings)
    make_data(factory)
    prompt = edited(settings, "captioners", "first", "prompt", value="Other <image>:")
    started = time.perf_counter()
    text = status_text(factory_status(factory_of(prompt)))
    assert 'captions/first: 12 shards stale: prompt changed from "Describe <image>:" to "Other <image>:"' in text
    assert time.perf_counter() - started < 10
