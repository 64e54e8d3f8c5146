"""The graph: planning is pure and remembered, and making tells what was planned without it."""

import json

import pytest
from planned_store import counted, finish, finish_everything, finish_shards
from small_factory import settings_of

from caploom.config.factory import Factory
from caploom.config.factory_config import parse_config
from caploom.errors import MissingArtifactError, StoreError
from caploom.questions.results.latest_results import latest_results
from caploom.questions.results.results import finished_arms
from caploom.questions.status.factory_status import factory_status
from caploom.stages.graph import Graph
from caploom.stages.registry import STAGES, load_stage, stages
from caploom.stages.stage import Ref

CAPTIONERS = ("a", "b", "c", "d")


@pytest.fixture
def factory(write_source, tmp_path):
    """Four captioners and a recipe of all; nothing is made."""
    return _factory(write_source, tmp_path, {"all": {"captioners": "all", "shear": "words"}})


def _factory(write_source, tmp_path, recipes):
    source = write_source(2)
    settings = settings_of(source)
    model = {"backend": "import", "root": str(source / "images"), "captions": str(source / "captions.json")}
    settings |= {
        "store": str(tmp_path / "store"),
        "duplicates": {"near": "off", "leakage": "off"},
        "captioners": dict.fromkeys(CAPTIONERS, model),
        "shears": {"words": [{"max_words": 5}]},
        "evaluation_sets": {"held-out": settings["pairs"]},
        "recipes": recipes,
    }
    return Factory.from_config(parse_config(settings, base=tmp_path, source="factory.yaml"))


def test_a_plan_over_many_shards_reads_each_manifest_once_and_lists_each_kind_once(factory):
    finish_everything(factory, 300)
    counting, store = counted(factory)
    graph = Graph(counting)
    assert graph.find(Ref("retrieval_metrics", ("all",))) is not None
    assert store.reads.most_common(1)[0][1] == 1
    assert store.listings == {"shards": 1}
    assert not store.pulls and not store.writes
    # Shards, raw pairs, four captioners' captions and sheared captions; the recipe's chain and evaluation set.
    assert store.reads.total() == 300 * (2 + 4 + 4) + 5


def test_many_finished_arms_read_no_manifest_twice(write_source, tmp_path):
    mixes = [{"raw_probability": place / 100} for place in range(1, 65)]
    recipes = {f"arm-{place}": {"captioners": "all", "shear": "words", "mix": mix} for place, mix in enumerate(mixes)}
    factory = _factory(write_source, tmp_path, recipes)
    finish_everything(factory, 3)
    counting, store = counted(factory)
    done, waiting = finished_arms(counting)
    assert (len(done), waiting) == (64, [])
    assert store.reads.most_common(1)[0][1] == 1
    assert max(store.listings.values()) == 1
    assert len(latest_results(counting).arms) == 64


def test_status_reads_each_manifest_once_and_lists_each_kind_once(factory):
    finish_everything(factory, 20)
    counting, store = counted(factory)
    assert [slot.asset for slot in factory_status(counting).slots if slot.state != "current"] == ["ablation_report"]
    assert store.reads.most_common(1)[0][1] == 1
    assert max(store.listings.values()) == 1


def test_planning_makes_nothing(factory):
    finish_shards(Graph(factory), 2)
    before = sorted(factory.store.root.rglob("*"))
    graph = Graph(factory)
    for kind in STAGES:
        for key in graph.keys(kind):
            if graph.stage(kind).make is None and graph.stage(kind).look is None:
                try:
                    graph.plan(Ref(kind, key))
                except MissingArtifactError:
                    continue
    factory_status(factory)
    latest_results(factory)
    assert sorted(factory.store.root.rglob("*")) == before


def test_what_is_missing_is_named_with_what_makes_it(factory):
    graph = Graph(factory)
    with pytest.raises(StoreError, match='There is no shard "shard-00007"'):
        graph.plan(Ref("raw_pairs", ("shard-00007",)))
    finish_shards(graph, 1)
    graph = Graph(factory)
    with pytest.raises(MissingArtifactError, match=r"materialize raw_pairs \[shard-00000\] first"):
        graph.plan(Ref("captions", ("a", "shard-00000")))
    finish(graph, Ref("raw_pairs", ("shard-00000",)), images=1)
    with pytest.raises(MissingArtifactError, match=r"materialize captions/a \[shard-00000\] first"):
        graph.plan(Ref("sheared", ("a", "words", "shard-00000")))
    with pytest.raises(MissingArtifactError, match=r"materialize captions/a \[shard-00000\] first"):
        Graph(factory).plan(Ref("retrieval_metrics", ("all",)))


def test_what_is_made_is_seen_by_what_was_planned_without_it(factory):
    finish_shards(Graph(factory), 1)
    graph = Graph(factory)
    pairs, captions = Ref("raw_pairs", ("shard-00000",)), Ref("captions", ("a", "shard-00000"))
    assert graph.find(captions) is None
    finish(graph, pairs, images=1)
    assert graph.plan(captions).inputs == (graph.require(pairs).as_input(),)
    finish(graph, captions)
    assert graph.find(captions) is not None


def test_every_step_says_what_it_needs_and_what_it_is_called():
    kinds = set(STAGES)
    for stage in stages():
        assert set(stage.upstream) <= kinds
        assert load_stage(stage.kind) is stage
        assert stage.hidden or stage.slot_of(tuple(f"a {axis}" for axis in stage.axes)) is not None
        if stage.words is not None:
            json.dumps(stage.kind)


def test_an_unknown_kind_is_refused_with_the_nearest():
    with pytest.raises(StoreError, match=r"no kind of artifact \"caption\".*did you mean \"captions\""):
        load_stage("caption")
