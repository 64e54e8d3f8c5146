"""What `caploom plan` counts is what a run then makes: each count against the run itself."""

import json
import time
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner
from small_factory import picture
from whole_factory import edited, factory_of, make_data, make_recipes, reader, write_settings

from caploom.captioning.identity import captioner_fingerprint
from caploom.captioning.ledger import Ledger
from caploom.cli import main
from caploom.errors import SourceError
from caploom.questions.cost.plan_cost import plan_cost
from caploom.questions.cost.text import cost_markdown, cost_text, duration
from caploom.stages.captions import shard_images
from caploom.stages.graph import Graph
from caploom.stages.raw_pairs import ingest_shard
from caploom.stages.registry import STAGES
from caploom.stages.shards import create_new_shards, shard_names
from caploom.stages.stage import Ref, Stage

KINDS = ("raw_pairs", "captions", "sheared", "training_set", "checkpoint", "retrieval_metrics")


@pytest.fixture(scope="module")
def before(whole, tmp_path_factory):
    """What was said of the factory before anything was made: what it says of an empty store."""
    return plan_cost(factory_of(edited(whole, "store", value=str(tmp_path_factory.mktemp("empty") / "store"))))


def artifacts(settings):
    store = factory_of(settings).store
    return {kind: {each.manifest.address for each in store.list(kind)} for kind in KINDS}


def to_do(plan):
    return {kind: sum(item.to_do for item in plan.of(kind)) for kind in KINDS}


def generated(settings, addresses):
    """The captions that were generated for these artifacts."""
    store = factory_of(settings).store
    return sum(store.read(address).manifest.summary["generated"] for address in addresses)


def test_before_anything_is_made_everything_is_counted_and_no_time_is_made_up(whole, before):
    assert to_do(before) == {kind: len(made) for kind, made in artifacts(whole).items()}
    assert {item.name: item.units for item in before.of("captions")} == {"first": 12, "second": 12}
    assert before.captions == generated(whole, artifacts(whole)["captions"])
    assert before.seconds == 0
    assert {item.stage for item in before.not_measured} == set(KINDS)
    assert before.to_dict()["seconds"] is None
    text = cost_text(before)
    assert "not measured yet" in text
    assert "at most 24 captions to make" in text


def test_after_a_run_nothing_is_to_do(whole):
    plan = plan_cost(factory_of(whole))
    assert plan.is_done
    assert (plan.captions, plan.seconds, plan.not_measured) == (0, 0, [])
    assert {kind: sum(item.done for item in plan.of(kind)) for kind in KINDS} == {
        kind: len(made) for kind, made in artifacts(whole).items()
    }
    assert "Nothing is to do" in cost_text(plan)


@pytest.fixture
def own(own_whole):
    return own_whole


GRID = {
    "captioners": [["second"], {"subsets": "cumulative"}],
    "shears": ["none"],
    "mixes": {"uniform": "uniform", "mostly-raw": {"raw_probability": 0.8}},
    "seeds": [0, 1],
}


@pytest.mark.parametrize(
    ("path", "value", "captions"),
    [
        (("grid",), GRID, 0),
        (("captioners", "first", "prompt"), "Name the colour of <image>:", 12),
        (("shears", "words"), [{"max_words": 4}], 0),
        (("recipes", "one", "mix"), "concatenate", 0),
        (("seeds",), [0, 1], 0),
        (("trainers", "small", "steps"), 2, 0),
    ],
)
def test_what_an_edit_costs_is_what_the_run_then_makes(own, path, value, captions):
    changed = edited(own, *path, value=value)
    before = artifacts(own)
    plan = plan_cost(factory_of(changed))
    make_recipes(factory_of(changed))
    made = {kind: after - before[kind] for kind, after in artifacts(changed).items()}
    assert to_do(plan) == {kind: len(addresses) for kind, addresses in made.items()}
    assert plan.captions == captions == generated(changed, made["captions"])
    assert plan.not_measured == []
    assert plan.seconds > 0
    assert plan_cost(factory_of(changed)).is_done


def test_new_rows_are_counted_before_they_are_cut(tmp_path):
    own = write_settings(tmp_path)
    make_data(factory_of(own))
    captions = tmp_path / "pairs.json"
    rows = json.loads(captions.read_text())
    picture(40).save(tmp_path / "pairs" / "40.png")
    captions.write_text(
        json.dumps([{"image": "40.png", "caption": "new"}, {"image": "gone.png", "caption": "x"}, *rows])
    )
    plan = plan_cost(factory_of(own))
    assert [(item.to_do, item.units) for item in plan.of("raw_pairs")] == [(1, 2)]
    assert {item.name: (item.units, item.exact) for item in plan.of("captions")} == {
        "first": (2, False),
        "second": (2, False),
    }
    assert len(shard_names(factory_of(own))) == 2  # nothing was cut


def test_captions_that_the_ledger_has_are_not_asked_for_again(tmp_path):
    factory = factory_of(write_settings(tmp_path))
    create_new_shards(factory)
    for shard in shard_names(factory):
        ingest_shard(factory, shard)
    fingerprint = captioner_fingerprint(factory.config.captioners["first"])
    known = [ref.image_id for ref in shard_images(factory, "shard-00000")[:5]]
    row = {"captioner": "first", "fingerprint": fingerprint, "text": "a square", "finish_reason": "stop"}
    row |= {"seconds": 0.1, "attempt": 1}
    Ledger(factory.store, "first", fingerprint).append("shard-00000", [{**row, "image_id": each} for each in known])
    items = plan_cost(factory).of("captions")
    assert {item.name: (item.units, item.exact) for item in items} == {"first": (7, True), "second": (12, True)}


def test_a_rate_is_of_what_is_nearest_and_says_of_what(own):
    def basis(changed):
        return {item.name: item.rate.basis for item in plan_cost(factory_of(changed)).of("captions") if item.rate}

    prompted = edited(own, "captioners", "first", "prompt", value="Name the colour of <image>:")
    assert basis(prompted) == {"first": "12 captions of this captioner with other settings, on cpu"}
    added = edited(own, "captioners", "third", value={**own["captioners"]["first"], "prompt": "Say <image>:"})
    assert basis(added) == {"third": "24 captions of another captioner with the same model, on cpu"}
    other = {"model": "demo:tiny-otter", "prompt": "Say <image>:"}
    plan = plan_cost(factory_of(edited(own, "captioners", "third", value=other)))
    assert "caption third" in cost_text(plan)
    assert [item.name for item in plan.not_measured if item.stage == "captions"] == ["third"]
    trainer = edited(own, "trainers", "small", "batch_size", value=2)
    (training,) = plan_cost(factory_of(trainer)).of("checkpoint")
    assert training.rate.basis.endswith("samples of this model at another batch size, on cpu")
    assert (training.to_do, training.steps, training.units) == (3, 3, 6)


def test_captions_are_shared_and_an_unused_captioner_is_named(tmp_path):
    settings = write_settings(tmp_path, recipes={}, grid={"captioners": [[], ["first"]], "shears": ["none", "words"]})
    plan = plan_cost(factory_of(settings))
    assert {item.name: item.shared_by for item in plan.of("captions")} == {"first": 2, "second": 0}
    assert (plan.captions, plan.captions_unshared) == (24, 36)
    text = cost_text(plan)
    assert "first by 2 recipes. Made for each recipe they would be 36." in text
    assert "No recipe uses second" in text


def test_a_damaged_manifest_is_named_and_counts_as_missing(own):
    store = factory_of(own).store
    (checkpoint,) = store.list("checkpoint", "one")
    (checkpoint.folder / "manifest.json").write_text("{}")
    plan = plan_cost(factory_of(own))
    assert to_do(plan)["checkpoint"] == to_do(plan)["retrieval_metrics"] == 1
    assert any("checkpoint/one" in problem for problem in plan.damaged)
    assert "damaged: " in cost_text(plan)


def test_a_source_that_is_gone_leaves_what_needs_it_to_do(own, tmp_path):
    plan = plan_cost(factory_of(edited(own, "evaluation_sets", "held-out", "captions", value=str(tmp_path / "gone"))))
    assert {item.stage: (item.to_do, item.done) for item in plan.items if item.to_do} == {"retrieval_metrics": (3, 0)}
    with pytest.raises(SourceError, match="gone"):
        plan_cost(factory_of(edited(own, "pairs", "captions", value=str(tmp_path / "gone"))))


def test_both_stages_of_a_training_stand_together_and_recipes_in_their_order(own):
    sources = Path(own["pairs"]["root"]).parent
    changed = {**own, "target_sets": {"more": reader(sources, "more-pairs")}}
    changed["trainers"] = {**own["trainers"], "long": {**own["trainers"]["small"], "steps": 2}}
    recipe = {"captioners": ["first"], "shear": "sentence", "finetune": {"target_set": "more", "trainer": "small"}}
    changed["recipes"] = {name: {**recipe, "trainer": name} for name in ("small", "long")}
    plan = plan_cost(factory_of(changed))
    assert [(item.name, item.to_do, item.steps) for item in plan.of("checkpoint")] == [
        ("small", 1, 1),
        ("small, second stage", 2, 2),
        ("long", 1, 2),
    ]
    assert [(item.name, item.to_do, item.shared_by, item.rate) for item in plan.of("target_set")] == [
        ("more", 1, 2, None)
    ]


def _build_toy(making, draft):
    (draft.folder / "toy.txt").write_text("toy")
    time.sleep(0.02)


TOY = Stage(
    kind="toy",
    code_version="1",
    axes=("shard",),
    keys=lambda graph: graph.keys("shards"),
    inputs=lambda graph, key: [Ref("raw_pairs", key)],
    build=_build_toy,
)


def test_a_step_that_says_nothing_of_its_cost_is_one_line(own, monkeypatch):
    monkeypatch.setitem(STAGES, "toy", f"{__name__}:TOY")
    (item,) = plan_cost(factory_of(own)).of("toy")
    assert (item.to_do, item.done, item.seconds) == (2, 0, None)
    toy = Graph(factory_of(own)).make(Ref("toy", ("shard-00000",)))
    plan = plan_cost(factory_of(own))
    (item,) = plan.of("toy")
    assert (item.to_do, item.done) == (1, 1)
    assert item.seconds == pytest.approx(toy.manifest.seconds)
    row = next(line for line in cost_text(plan).splitlines() if line.startswith("toy "))
    assert "1 of 2" in row
    assert "1 artifacts of this kind, on cpu" in row


def test_the_command_says_the_same_as_text_and_as_json(own, tmp_path):
    path = tmp_path / "factory.yaml"
    path.write_text(yaml.safe_dump(edited(own, "seeds", value=[0, 1]), sort_keys=False))
    said = CliRunner().invoke(main, ["plan", str(path)])
    assert said.exit_code == 0
    assert "whole: 3 recipes, 6 with their seeds." in said.output
    assert "3 of 6" in said.output
    record = json.loads(CliRunner().invoke(main, ["plan", str(path), "--json"]).output)
    assert (record["trainings"], record["captions_to_make"], record["nothing_to_do"]) == (6, 0, False)
    (training,) = [item for item in record["items"] if item["stage"] == "checkpoint"]
    assert (training["to_do"], training["done"], training["steps"], training["units"]) == (3, 3, 3, 12)
    assert record["seconds"] > 0
    assert "| train | small | 3 of 6 |" in cost_markdown(plan_cost(factory_of(edited(own, "seeds", value=[0, 1]))))


def test_an_unknown_key_is_a_sentence(own, tmp_path):
    path = tmp_path / "factory.yaml"
    path.write_text(yaml.safe_dump({**own, "gird": {}}))
    said = CliRunner().invoke(main, ["plan", str(path)])
    assert said.exit_code == 2
    assert 'did you mean "grid"' in said.output


def test_durations():
    seconds = (0, 0.2, 59.4, 59.6, 364, 7500, 273600)
    assert [duration(each) for each in seconds] == [
        "0 s",
        "< 1 s",
        "59 s",
        "1 min",
        "6 min 4 s",
        "2 h 5 min",
        "3 d 4 h",
    ]
