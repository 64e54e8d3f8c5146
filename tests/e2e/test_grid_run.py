"""A grid really run: an arm that fails stops no other, and captions are made once for all arms."""

from pathlib import Path

import pytest
from tiny_factory import CAPTIONER, run_headless, tiny_settings, write_settings

from caploom.config.factory import Factory
from caploom.questions.cost.plan_cost import plan_cost

GRID = {
    "captioners": [[], [CAPTIONER]],
    "shears": ["none", "first-sentence"],
    "filters": {"nothing-left": [{"min_words": 500}], "unfiltered": []},
}
GOOD = {"raw-only", f"{CAPTIONER}.none", f"{CAPTIONER}.first-sentence"}


@pytest.mark.slow
def test_arms_that_fail_do_not_stop_the_others(tmp_path: Path, pictures: Path) -> None:
    settings = {**tiny_settings(pictures), "recipes": {}, "grid": GRID}
    path = write_settings(tmp_path / "grid.yaml", settings)
    run = run_headless(path)
    assert run.code == 1, run.said
    assert "Traceback" not in run.said
    failed = [line for line in run.stderr.splitlines() if line.startswith("FAILED run_recipe")]
    assert len(failed) == 3
    assert all(f"[{name}.nothing-left]" in sentence for name, sentence in zip(_in_order(), failed, strict=True))
    factory = Factory.from_yaml(path)
    measured = {artifact.manifest.address.split("/")[1] for artifact in factory.store.list("retrieval_metrics")}
    assert measured == GOOD
    assert all(f"| {name} " in run.stdout for name in GOOD)
    captions = factory.store.list("captions", CAPTIONER)
    assert sum(artifact.manifest.summary["generated"] for artifact in captions) == 60
    plan = plan_cost(factory)
    assert {item.stage: item.to_do for item in plan.items if item.to_do} == {
        "training_set": 3,
        "checkpoint": 3,
        "retrieval_metrics": 3,
    }


def _in_order() -> list[str]:
    return ["raw-only", f"{CAPTIONER}.none", f"{CAPTIONER}.first-sentence"]
