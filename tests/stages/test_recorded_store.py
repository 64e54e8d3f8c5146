"""A demo store that was finished before the graph was declared is the graph's, address by address.

`finished_demo.json.gz` holds the manifests of such a store, and the two small tables that planning reads.
"""

import base64
import gzip
import json
from pathlib import Path

import pytest
import yaml

from caploom.config.factory import Factory
from caploom.config.factory_config import DEMO_CONFIG, parse_config
from caploom.questions.status.factory_status import factory_status
from caploom.report.make import make_report
from caploom.stages.evaluation_sets import draw
from caploom.stages.graph import Graph
from caploom.stages.registry import STAGES
from caploom.stages.stage import Ref

RECORDED = json.loads(gzip.decompress((Path(__file__).parent / "finished_demo.json.gz").read_bytes()))
ELSEWHERE = {"canaries", "ablation_report"}
"""Kinds that no key finds: the versions of torch and transformers are part of a canary's address."""


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """The demo's factory on the recorded store; of its pictures those to evaluate are drawn."""
    root = tmp_path_factory.mktemp("demo")
    settings = yaml.safe_load(DEMO_CONFIG.read_text(encoding="utf-8")) | {"store": str(root / "store")}
    settings["pairs"]["folder"] = str(root / "training")
    settings["evaluation_sets"]["scenes"]["folder"] = str(root / "evaluation")
    factory = Factory.from_config(parse_config(settings, base=root, source="demo.yaml"))
    for address, manifest in RECORDED["manifests"].items():
        folder = factory.store.path(address)
        folder.mkdir(parents=True)
        (folder / "manifest.json").write_text(json.dumps(manifest))
    for name, data in RECORDED["files"].items():
        (factory.store.root / name).write_bytes(base64.b64decode(data))
    draw(factory.config.evaluation_sets["scenes"])
    return factory


def test_every_recorded_artifact_is_found_at_its_address(demo):
    graph = Graph(demo)
    keyed = (Ref(kind, key) for kind in STAGES if kind not in ELSEWHERE for key in graph.keys(kind))
    found = {ref: graph.find(ref) for ref in keyed if ref.kind != "raw_words"}
    assert [str(ref) for ref, artifact in found.items() if artifact is None] == []
    addresses = {artifact.manifest.address for artifact in found.values()}
    assert addresses == {each for each in RECORDED["manifests"] if each.split("/")[0] not in ELSEWHERE}


def test_nothing_is_to_be_made_again(demo):
    assert factory_status(demo).is_current
    report = make_report(demo)
    assert report.reused
    assert report.manifest.address in RECORDED["manifests"]
