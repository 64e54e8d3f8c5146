import json
import re
import shutil

import pytest
from asked_factory import captioned, measured, write_factory

from caploom.errors import StoreError
from caploom.questions.lineage.groups import grouped_lineage, shards_in_words
from caploom.questions.lineage.lineage_graph import artifact_lineage
from caploom.questions.lineage.text import (
    lineage_dot,
    lineage_markdown,
    lineage_mermaid,
    lineage_tree,
)
from caploom.stages.registry import STAGES
from caploom.stages.stage import Stage
from caploom.storage.opening import open_store
from caploom.storage.store import Plan


def followed(store, root):
    """The lineage by a plain walk over all manifests: addresses back and forward."""
    inputs = {
        artifact.manifest.address: [each.address for each in artifact.manifest.inputs]
        for kind in store.root.iterdir()
        if kind.is_dir()
        for artifact in store.list(kind.name)
    }

    def reached(following):
        found, waiting = set(), [root]
        while waiting:
            at = waiting.pop()
            fresh = set(following(at)) - found
            found |= fresh
            waiting += fresh
        return found

    back = reached(lambda at: inputs[at])
    return back, reached(lambda at: [other for other, sources in inputs.items() if at in sources])


@pytest.mark.parametrize("name", ["checkpoint/sheared", "training_set/raw-only", "captions/colours/shard-00001"])
def test_the_graph_is_what_the_manifests_say(asked, name):
    graph = artifact_lineage(asked.store, name)
    assert (set(graph.back), set(graph.forward)) == followed(asked.store, graph.root)
    assert graph.back and graph.forward
    for edge in graph.edges:
        inputs = [each.address for each in asked.store.read(edge.made).manifest.inputs]
        assert edge.source in inputs
    assert not graph.missing


def test_a_tree_tells_shards_in_one_line_and_a_part_once(asked):
    tree = lineage_tree(artifact_lineage(asked.store, "checkpoint/sheared"))
    assert re.search(r"captions/colours \(fingerprint \w+\): 2 shards, shard-00000, shard-00001", tree)
    assert len(re.findall(r"reader image_captions", tree)) == 1
    assert "(see above)" in tree
    assert 'prompt "Describe <image>:"' in tree
    assert "retrieval_metrics" in tree.split("made into")[1]


def test_all_shards_are_told_when_asked_for(asked):
    graph = artifact_lineage(asked.store, "checkpoint/sheared")
    tree = lineage_tree(graph, fold=False)
    for address in [*graph.back, *graph.forward]:
        assert address.split("/")[-1] in tree


def test_an_input_that_is_gone_is_named(own_asked):
    factory = own_asked
    (gone,) = factory.store.list("raw_pairs", *_name_of(factory, "raw_pairs", "shard-00001"))
    shutil.rmtree(gone.folder)
    graph = artifact_lineage(factory.store, "checkpoint/sheared")
    assert [node.address for node in graph.missing] == [gone.manifest.address]
    tree = lineage_tree(graph)
    assert f"MISSING ({gone.manifest.address})" in tree
    assert "raw_pairs" in lineage_dot(graph)


def test_a_damaged_input_is_named_with_its_problem(own_asked):
    factory = own_asked
    (damaged,) = factory.store.list("captions", "colours", *_name_of(factory, "captions", "shard-00000")[1:])
    (damaged.folder / "manifest.json").write_text('{"kind": "captions"', encoding="utf-8")
    graph = artifact_lineage(factory.store, "checkpoint/sheared")
    assert [(node.address, node.state) for node in graph.missing] == [(damaged.manifest.address, "damaged")]
    assert any("cannot be read" in note for note in graph.notes)


def test_an_input_that_was_made_anew_is_told(own_asked):
    factory = own_asked
    (pairs,) = factory.store.list("raw_pairs", *_name_of(factory, "raw_pairs", "shard-00001"))
    manifest = pairs.folder / "manifest.json"
    edited = json.loads(manifest.read_text()) | {"data_version": "0123456789abcdef"}
    manifest.write_text(json.dumps(edited), encoding="utf-8")
    graph = artifact_lineage(factory.store, "checkpoint/raw-only")
    assert [node.address for node in graph.missing] == [pairs.manifest.address]
    assert "its data version is 0123456789abcdef" in lineage_tree(graph)


def test_mermaid_and_dot_hold_the_same_graph(asked):
    graph = artifact_lineage(asked.store, "training_set/sheared")
    grouped = grouped_lineage(graph)
    edges = {(source, made) for made, sources in grouped.sources.items() for source in sources}
    for text, node, edge in [
        (lineage_mermaid(graph), r'^    (n\d+)\["([^"]*)"\]$', r"^    (n\d+) --> (n\d+)$"),
        (lineage_dot(graph), r'^    (n\d+) \[label="((?:[^"\\]|\\.)*)"[^"]*\];$', r"^    (n\d+) -> (n\d+);$"),
    ]:
        names = dict(re.findall(node, text, re.MULTILINE))
        assert len(names) == len(grouped.groups)
        assert len(re.findall(edge, text, re.MULTILINE)) == len(edges)
        ends = {end for pair in re.findall(edge, text, re.MULTILINE) for end in pair}
        assert ends <= set(names)
        for line in text.splitlines()[1:]:  # nothing else but what is declared
            assert re.match(r"^    (n\d+ ?[\[-]|classDef |class |rankdir|node )|^}$", line), line


def test_what_wants_to_be_code_is_text(tmp_path):
    prompt = 'Say "<image>"] --> \x1b[31m <script>alert(1)</script>; end\n```'
    captioner = {"model": "demo:tiny-llava", "prompt": prompt, "batch_size": 4}
    factory = captioned(write_factory(tmp_path, captioners={"colours": captioner}))
    measured(factory, "sheared")
    graph = artifact_lineage(factory.store, "checkpoint/sheared")
    for text in (lineage_tree(graph), lineage_mermaid(graph), lineage_dot(graph), lineage_markdown(graph)):
        assert "\x1b" not in text
    assert "<script>" not in lineage_markdown(graph)
    assert "<script>" not in lineage_mermaid(graph)
    quoted = re.sub(r'"(?:[^"\\]|\\.)*"', "", lineage_dot(graph))
    assert "script" not in quoted


def test_json_has_nodes_and_edges(asked):
    graph = artifact_lineage(asked.store, "sheared_captions/sheared")
    told = json.loads(json.dumps(graph.to_dict()))
    assert {node["address"] for node in told["nodes"]} == {graph.root, *graph.back, *graph.forward}
    assert {node["side"] for node in told["nodes"]} == {"root", "back", "forward"}
    assert all(set(edge) == {"source", "made", "data_version"} for edge in told["edges"])


def test_shards_are_one_line_whatever_stands_before_them_in_their_names(tmp_path, monkeypatch):
    monkeypatch.setitem(STAGES, "counts", f"{__name__}:COUNTS")
    store = open_store(tmp_path / "store")
    inputs = []
    for kind, name in (("raw_words", ()), ("counts", ("llava",))):
        for shard in ("shard-00000", "shard-00001"):
            plan = Plan(kind=kind, name=(*name, shard), code_version="1", configuration={"shard": shard})
            inputs.append(store.make(plan, lambda draft: None).as_input())
    store.make(Plan(kind="total", code_version="1", configuration={}, inputs=tuple(inputs)), lambda draft: None)
    tree = lineage_tree(artifact_lineage(store, "total"))
    assert "raw_words: 2 shards, shard-00000, shard-00001" in tree
    assert "counts/llava: 2 shards, shard-00000, shard-00001" in tree


COUNTS = Stage(kind="counts", code_version="1", axes=("captioner", "shard"), keys=lambda graph: [])


def test_an_unknown_artifact_is_refused(asked):
    with pytest.raises(StoreError):
        artifact_lineage(asked.store, "checkpoint/shaered")


def test_shards_with_gaps_are_not_told_as_a_range():
    assert shards_in_words([f"shard-{number:05d}" for number in range(4)]) == "4 shards, shard-00000 to shard-00003"
    assert "not all" in shards_in_words(["shard-00000", "shard-00001", "shard-00003"])


def _name_of(factory, kind, shard):
    return next(
        artifact.manifest.address.split("/")[1:-1]
        for artifact in factory.store.list(kind)
        if f"/{shard}/" in artifact.manifest.address
    )
