"""How recipes did on each version of their data: what counts as one, what changed, and what the report says."""

import copy
import json
import shutil

import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from grown_factory import edit, grow, metrics_of, run, write
from whole_factory import factory_of, make_data, make_recipe, write_settings

from caploom.captioning.retries import request_retry
from caploom.cli import main
from caploom.questions.results import data_versions as versions_module
from caploom.questions.results.data_versions import data_versions
from caploom.questions.status.factory_status import factory_status
from caploom.report.make import make_report
from caploom.reproduce.reproduce import reproduce
from caploom.reproduce.verdict import verdict_text

SET = "held-out"


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """Both recipes measured; then the source grew, and the sheared one was measured again, and the raw one too."""
    path = write(tmp_path_factory.mktemp("grown"))
    run(path, "raw-only", "sheared", noise=2.0)
    grow(path, range(14, 21))
    run(path, "raw-only", "sheared", noise=0.6)
    return path


@pytest.fixture
def own(path, tmp_path):
    """The same to be changed; put back afterwards, in its own place, as a source is known by where it lies."""
    shutil.copytree(path.parent, tmp_path / "kept")
    yield path
    shutil.rmtree(path.parent)
    shutil.copytree(tmp_path / "kept", path.parent)


def hits(metrics):
    """Whether the right one was at the first place, by query, straight from the file."""
    rows = pq.read_table(metrics.folder / "zero-shot" / SET / "ranks.parquet").to_pylist()
    return {(row["direction"], row["query"]): float(row["rank"] == 1) for row in rows}


def mean_difference(new, old, images):
    """Mean Recall@1 of both directions, `new` minus `old`, over the queries of some images."""
    sides = []
    for direction in ("image_to_text", "text_to_image"):
        asked = [key for key in new if key[0] == direction and key[1].split("#")[0] in images]
        sides.append(sum(new[key] - old[key] for key in asked) / len(asked))
    return sum(sides) / 2


def jackknife(new, old):
    """The difference and its standard error, by leaving each image out in turn."""
    images = sorted({query.split("#")[0] for _, query in new})
    without = [mean_difference(new, old, set(images) - {each}) for each in images]
    count, middle = len(images), sum(without) / len(images)
    error = ((count - 1) / count * sum((each - middle) ** 2 for each in without)) ** 0.5
    return mean_difference(new, old, set(images)), error


def test_a_really_trained_factory_that_grew_has_two_versions_and_an_unchanged_one_no_third(tmp_path):
    settings = write_settings(tmp_path)
    settings["recipes"] = {"one": settings["recipes"]["one"]}
    settings["trainers"]["small"]["steps"] = 3
    factory = factory_of(settings)
    make_data(factory)
    make_recipe(factory, "one")
    (only,) = data_versions(factory, "one").versions
    assert (only.shards, only.images, only.new_data) == (2, 12, None)

    rows = json.loads((tmp_path / "pairs.json").read_text())
    more = json.loads((tmp_path / "more-pairs.json").read_text())[-2:]
    for row in more:
        shutil.copy(tmp_path / "more-pairs" / row["image"], tmp_path / "pairs" / row["image"])
    (tmp_path / "pairs.json").write_text(json.dumps([*rows, *more]))
    for _ in range(2):  # the second time nothing is new
        make_data(factory)
        make_recipe(factory, "one")
        found = data_versions(factory, "one")
        first, second = found.versions
        assert found.left_out.to_dict() == {}
    assert (first.shards, first.images, first.captions) == (2, 12, 24)
    assert (second.shards, second.images, second.captions) == (3, 14, 28)
    assert (second.new_data.added, second.new_data.made_again, second.new_data.gone) == (1, 0, 0)
    assert first.samples_seen == second.samples_seen == 12
    assert first.training_set.manifest.started <= second.training_set.manifest.started
    change = second.recalls[SET].change
    difference, error = jackknife(hits(second.metrics[0]), hits(first.metrics[0]))
    assert change.difference == pytest.approx(difference)
    assert change.high - change.low == pytest.approx(2 * 1.959964 * error)
    assert second.recalls[SET].mean - first.recalls[SET].mean == pytest.approx(difference)


def test_the_change_is_paired_over_the_queries_of_both_versions(path):
    factory = run(path, noise=0)
    found = data_versions(factory, "sheared")
    (_, first), (number, second) = found.of(SET)
    assert number == 2
    before, now = metrics_of(factory, "sheared")
    assert first.metrics[0].manifest.address == before.manifest.address
    difference, error = jackknife(hits(now), hits(before))
    change = second.recalls[SET].change
    assert change.difference == pytest.approx(difference)
    assert difference > 0 < error
    assert change.low == pytest.approx(difference - 1.959964 * error)
    recalls = second.recalls[SET]
    assert recalls.mean == pytest.approx((recalls.image_to_text + recalls.text_to_image) / 2)


def test_what_was_measured_with_other_settings_is_no_version(own):
    edit(own, shears={"first": [{"max_words": 2}]})
    factory = run(own, "sheared", noise=0.1)
    found = data_versions(factory, "sheared")
    assert len(found.versions) == 1
    assert found.left_out.to_dict() == {"other_settings": 2}
    edit(own, shears={"first": ["first_sentence"]}, trainers={"small": {"model": "picture-book", "steps": 3}})
    unmeasured = data_versions(run(own, noise=0), "sheared")
    assert not unmeasured.versions
    assert unmeasured.left_out.to_dict() == {"other_settings": 3}
    assert "sheared has not been measured with its present settings" in said(own, "sheared")


def test_another_evaluation_set_is_no_version_of_the_data(own):
    rows = json.loads((own.parent / "held-out.json").read_text())
    (own.parent / "held-out.json").write_text(json.dumps([*rows, {**rows[0], "caption": "again number 3"}]))
    factory = run(own, "sheared", noise=0.1)
    found = data_versions(factory, "sheared")
    assert len(found.versions) == 1
    assert found.left_out.other_settings == 2


def test_captions_made_anew_of_the_same_images_are_a_version_too(own, tmp_path):
    factory = run(own, noise=0)
    configuration = factory.store.list("captions", "colours")[0].manifest.configuration
    request_retry(factory.store, "colours", configuration["captioner_fingerprint"], configuration["shard"])
    *_, before, newest = data_versions(run(own, "sheared", noise=0.5), "sheared").versions
    assert before.images == newest.images
    assert (newest.new_data.added, newest.new_data.made_again, newest.new_data.gone) == (0, 0, 0)
    assert "| the same images, different captions" in said(own, "sheared")
    again = reproduce(factory, make_report(factory), tmp_path / "again")
    assert again.is_same, verdict_text(again)


def test_seeds_are_taken_together_and_only_common_ones_are_compared(tmp_path):
    path = write(tmp_path, seeds=[0, 1])
    run(path, "raw-only", "raw-only-seed-1", noise=2.0)
    grow(path, range(14, 16))
    factory = run(path, "raw-only", noise=0.6)
    first, second = data_versions(factory, "raw-only-seed-1").versions
    assert (list(first.metrics), list(second.metrics)) == ([0, 1], [0])
    difference, _ = jackknife(hits(second.metrics[0]), hits(first.metrics[0]))
    assert second.recalls[SET].change.difference == pytest.approx(difference)
    report = make_report(factory)
    assert reproduce(factory, report, tmp_path / "again").is_same


def test_what_was_deleted_is_said(own):
    factory = run(own, noise=0)
    before, _ = metrics_of(factory, "sheared")
    (before.folder / "zero-shot" / SET / "ranks.parquet").unlink()
    _, second = data_versions(factory, "sheared").versions
    assert second.recalls[SET].change is None
    assert "1 change cannot be computed, because the ranks" in said(own, "sheared")
    assert "| ranks are gone " in said(own, "sheared")
    shutil.rmtree(before.folder)
    found = data_versions(factory, "sheared")
    assert len(found.versions) == 1
    assert found.left_out.to_dict() == {"unmeasured": 1}
    (checkpoint,) = (
        each
        for each in factory.store.list("checkpoint", "raw-only")
        if "2.0" in each.file("model.safetensors").read_text()
    )
    (checkpoint.folder / "manifest.json").write_text("{")
    assert data_versions(factory, "raw-only").left_out.to_dict() == {"gone": 1, "unmeasured": 1}
    text = said(own, "raw-only")
    assert "1 measurement is not shown, because something that it was made from is gone from the store or" in text


def test_only_the_newest_are_shown_and_they_keep_their_numbers(own, monkeypatch):
    monkeypatch.setattr(versions_module, "MOST_VERSIONS", 1)
    found = data_versions(run(own, noise=0), "sheared")
    ((number, newest),) = found.numbered()
    assert (number, newest.shards, newest.new_data) == (2, 3, None)
    assert found.left_out.older == 1
    assert newest.recalls[SET].change is None


def said(path, *arguments):
    done = CliRunner().invoke(main, ["versions", str(path), *arguments])
    assert done.exit_code == 0, done.output
    return done.output


def test_the_command_prints_a_row_a_version_of_one_recipe_or_of_all(path):
    text = said(path, "sheared")
    assert text.startswith("sheared on held-out\n\n| version | measured (UTC)")
    header, _, *rows = [line for line in text.splitlines() if line.startswith("|")]
    cells = [dict(zip(header.split("|"), row.split("|"), strict=True)) for row in rows]
    cells = [{key.strip(): value.strip() for key, value in row.items()} for row in cells]
    assert [(row["version"], row["shards"], row["images"]) for row in cells] == [("1", "2", "14"), ("2", "3", "21")]
    assert cells[0]["change (95 % interval)"] == "-"
    assert cells[1]["change (95 % interval)"].startswith("+")
    assert cells[1]["what is new"] == "1 shard more"
    every = json.loads(said(path, "--json"))["recipes"]
    assert [each["recipe"] for each in every] == ["raw-only", "sheared"]
    assert [each["version"] for each in every[1]["versions"]] == [1, 2]
    assert every[1]["versions"][1]["new_data"] == {"added": 1, "made_again": 0, "gone": 0}
    done = CliRunner().invoke(main, ["versions", str(path), "shered"])
    assert done.exit_code == 2
    assert 'There is no recipe "shered"; known: raw-only, sheared' in done.output


def test_the_report_has_the_versions_and_is_made_again_to_the_byte(own, tmp_path):
    settings = copy.deepcopy(own.read_text())
    edit(own, shears={"first": [{"max_words": 2}]})
    run(own, "sheared", noise=0.1)
    own.write_text(settings)
    factory = run(own, noise=0)
    report = make_report(factory)
    older = [metrics_of(factory, name)[0].manifest.address for name in ("raw-only", "sheared")]
    addresses = [each.address for each in report.manifest.inputs]
    assert addresses[2:] == older
    assert report.manifest.configuration["versions_left_out"] == {"sheared": {"other_settings": 1}}
    page, markdown = report.file("report.html").read_text(), report.file("report.md").read_text()
    for text in (page, markdown):
        assert "Versions of the data on held-out" in text
        assert "sheared: 1 older measurement of other settings is not shown" in text
    assert '<figure id="chart-m0-versions">' in page
    assert "charts/m0-versions.svg" in markdown
    assert "<svg" in report.file("charts/m0-versions.svg").read_text()
    assert all(f'id="artifact-{address.replace("/", "-")}"' in page for address in older)
    results = json.loads(report.file("results.json").read_text())
    assert [len(each["versions"]) for each in results["versions"]] == [2, 2]
    (slot,) = (each for each in factory_status(factory).slots if each.asset == "ablation_report")
    assert slot.state == "current"
    again = reproduce(factory, report, tmp_path / "again")
    assert again.outcome == "byte-identical", verdict_text(again)


def test_a_factory_that_never_grew_has_no_such_section(tmp_path):
    path = write(tmp_path)
    factory = run(path, "raw-only", noise=1.0)
    report = make_report(factory)
    assert "Versions of the data" not in report.file("report.md").read_text()
    assert len(report.manifest.inputs) == 1
