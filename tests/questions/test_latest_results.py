"""The newest measurement of each recipe, while its data has grown and nothing was trained on the new images yet."""

import json
import shutil

import pytest
from click.testing import CliRunner
from grown_factory import edit, grow, metrics_of, run, write

from caploom.cli import main
from caploom.questions.results.latest_results import latest_results
from caploom.questions.status.factory_status import factory_status
from caploom.report.make import make_report
from caploom.reproduce.reproduce import reproduce
from caploom.reproduce.verdict import verdict_text


@pytest.fixture
def path(tmp_path):
    """Both recipes measured on 14 images; then the source grew, and only the sheared one was measured again."""
    path = write(tmp_path)
    run(path, "raw-only", "sheared", noise=2.0)
    grow(path, range(14, 21))
    run(path, "sheared", noise=0.6)
    return path


def names(found):
    return [arm.recipe.name for arm in found.arms]


def report_slot(factory):
    (slot,) = (each for each in factory_status(factory).slots if each.asset == "ablation_report")
    return slot


def test_a_recipe_not_trained_on_the_new_images_is_shown_as_last_measured(path, tmp_path):
    factory = run(path)
    found = latest_results(factory)
    assert names(found) == ["raw-only", "sheared"]
    assert (found.on_earlier_data, found.waiting) == ({"raw-only": 14}, [])
    (before,) = metrics_of(factory, "raw-only")
    assert found.arms[0].metrics.manifest.address == before.manifest.address
    report = make_report(factory)
    said = "Measured on earlier data, and not on the present one yet: raw-only (14 images)."
    assert said in report.file("report.md").read_text()
    assert said in report.file("report.html").read_text()
    assert json.loads(report.file("results.json").read_text())["on_earlier_data"] == {"raw-only": 14}
    assert said in CliRunner().invoke(main, ["results", str(path)]).output
    again = reproduce(factory, report, tmp_path / "again")
    assert again.is_same, verdict_text(again)


def test_the_report_can_be_made_when_nothing_was_measured_on_the_new_images(path, tmp_path):
    run(path, "raw-only", noise=0.6)
    before = make_report(run(path))
    assert report_slot(run(path)).state == "current"
    grow(path, range(21, 24))
    factory = run(path)
    assert report_slot(factory).state == "outdated"
    report = make_report(factory)
    assert report.manifest.address != before.manifest.address
    assert latest_results(factory).on_earlier_data == {"raw-only": 21, "sheared": 21}
    again = reproduce(factory, report, tmp_path / "again")
    assert again.is_same, verdict_text(again)


def test_what_was_measured_with_other_settings_or_queries_does_not_stand_in(path):
    rows = json.loads((path.parent / "held-out.json").read_text())
    (path.parent / "held-out.json").write_text(json.dumps([*rows, {**rows[0], "caption": "again number 3"}]))
    assert names(latest_results(run(path))) == []
    (path.parent / "held-out.json").write_text(json.dumps(rows))
    edit(path, trainers={"small": {"model": "picture-book", "steps": 3}})
    found = latest_results(run(path))
    assert names(found) == []
    assert [recipe.name for recipe in found.waiting] == ["raw-only", "sheared"]


def test_seeds_of_earlier_data_are_not_mixed_with_those_of_the_present_one(tmp_path):
    path = write(tmp_path, seeds=[0, 1])
    run(path, "raw-only", "raw-only-seed-1", noise=2.0)
    grow(path, range(14, 16))
    assert latest_results(run(path)).on_earlier_data == {"raw-only": 14, "raw-only-seed-1": 14}
    found = latest_results(run(path, "raw-only", noise=0.6))
    assert names(found) == ["raw-only"]
    assert "raw-only-seed-1" in [recipe.name for recipe in found.waiting]
    shutil.rmtree(metrics_of(run(path), "raw-only")[-1].folder)
    assert latest_results(run(path)).on_earlier_data == {"raw-only": 14, "raw-only-seed-1": 14}
