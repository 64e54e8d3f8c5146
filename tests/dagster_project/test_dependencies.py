"""Dagster's edges are those of the steps' declarations: none is missing, and none is Dagster's own."""

import pytest

from caploom.config.factory_config import DEMO_CONFIG
from caploom.stages.registry import STAGES, load_stage
from dagster_project.definitions import definitions_of
from dagster_project.settings import SETTINGS

HAVE_ASSETS = {
    "raw_pairs",
    "captions",
    "sheared",
    "sheared_captions",
    "training_set",
    "checkpoint",
    "retrieval_metrics",
    "ablation_report",
}
SHOWN_IN = {"finetuned_checkpoint": "checkpoint"}


@pytest.fixture(scope="module")
def parents() -> dict[str, set[str]]:
    """By kind, the kinds of assets that its assets depend on, as Dagster has them."""
    graph = definitions_of(DEMO_CONFIG).resolve_asset_graph()
    found: dict[str, set[str]] = {}
    for key in graph.get_all_asset_keys() - {SETTINGS}:
        found.setdefault(key.path[0], set()).update(each.path[0] for each in graph.get(key).parent_keys - {SETTINGS})
    return found


def shown(kind: str) -> str | None:
    return kind if kind in HAVE_ASSETS else SHOWN_IN.get(kind)


def declared_parents(kind: str) -> set[str]:
    """The nearest assets above a kind, by the steps' own `upstream`."""
    found = set()
    for each in load_stage(kind).upstream:
        found |= {shown(each)} if shown(each) else declared_parents(each)
    return found - {shown(kind)}


def ancestors(parents: dict[str, set[str]], kind: str) -> set[str]:
    return parents[kind] | {above for each in parents[kind] for above in ancestors(parents, each)}


def test_the_assets_are_the_steps_that_people_materialize(parents) -> None:
    assert parents.keys() == HAVE_ASSETS


def test_every_edge_of_dagster_is_one_of_the_steps(parents) -> None:
    for kind, above in parents.items():
        parts = [kind, *(part for part, whole in SHOWN_IN.items() if whole == kind)]
        assert above <= set().union(*map(declared_parents, parts)), kind


@pytest.mark.parametrize("kind", STAGES)
def test_every_edge_of_a_step_is_one_of_dagster(parents, kind: str) -> None:
    asset = shown(kind)
    if asset is not None:
        assert declared_parents(kind) <= ancestors(parents, asset)
