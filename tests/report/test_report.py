"""The report of a small factory: what it says, that it is whole, and that captions stay text in it."""

import json
import re
from html.parser import HTMLParser

import pytest
from report_factory import CODE, build

from caploom.report.make import make_report
from caploom.report.markdown import without_files


@pytest.fixture(scope="module")
def factory(tmp_path_factory):
    return build(tmp_path_factory.mktemp("reported"))


@pytest.fixture(scope="module")
def report(factory):
    return make_report(factory)


@pytest.fixture(scope="module")
def page(report):
    return report.file("report.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def markdown(report):
    return report.file("report.md").read_text(encoding="utf-8")


class Tags(HTMLParser):
    """Every element of a page with its attributes."""

    def __init__(self, page):
        super().__init__()
        self.found = []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))

    def of(self, tag, attribute):
        return [attributes[attribute] for name, attributes in self.found if name == tag and attribute in attributes]


def test_every_section_of_the_report_is_there(page, markdown):
    for title in (
        "Retrieval on held-out",
        "Effect of each factor on held-out",
        "Recall@K on held-out",
        "Number of captioners on held-out",
        "Caption length on held-out",
        "Cost and gain on held-out",
        "Queries on held-out that one recipe gets right and another wrong",
        "What the captioners are like",
        "What was trained",
        "Artifacts",
    ):
        assert title in page
        assert f"## {title}" in markdown


def test_the_ranking_is_by_recall_with_spread_and_paired_intervals(report):
    results = json.loads(report.file("results.json").read_text())
    recalls = {row["recipe"]: row["mean_recall_at_1"] for row in results["rows"]}
    assert recalls["sheared"] > recalls["whole"] > recalls["raw-only"]
    assert all(row["spread"] is not None and row["seeds"] == [0, 1] for row in results["rows"])
    behind = results["behind_the_best"]["held-out"]
    assert set(behind) == {"whole", "raw-only"}
    for recipe, gap in behind.items():
        assert gap["difference"] == pytest.approx(recalls["sheared"] - recalls[recipe])
        assert gap["low"] < gap["difference"] < gap["high"]


def test_effects_are_those_of_recipes_that_differ_in_one_thing(report):
    results = json.loads(report.file("results.json").read_text())
    recalls = {row["recipe"]: row["mean_recall_at_1"] for row in results["rows"]}
    found = {(each["factor"], each["change"]): each for each in results["effects"]["held-out"]}
    shear = found["shear", "none to first"]
    assert shear["pairs"] == [["sheared", "whole"]]
    assert shear["effect"]["difference"] == pytest.approx(recalls["sheared"] - recalls["whole"])
    added = found["captioner", "colours added"]
    assert added["pairs"] == [["whole", "raw-only"], ["sheared", "raw-only"]]
    gain = (recalls["sheared"] + recalls["whole"]) / 2 - recalls["raw-only"]
    assert added["effect"]["difference"] == pytest.approx(gain)


def test_what_is_not_measured_yet_is_said(page, markdown):
    for text in (page, markdown):
        assert "Not measured yet: waiting, waiting-seed-1." in text


def test_every_link_leads_somewhere(page, markdown, report, factory):
    tags = Tags(page)
    names = [attributes["id"] for _, attributes in tags.found if "id" in attributes]
    assert len(names) == len(set(names))
    links = tags.of("a", "href")
    assert len([link for link in links if link.startswith("#artifact-")]) > 30
    for link in links:
        assert link[1:] in names if link.startswith("#") else (report.folder / link).resolve().is_file(), link
    for link in re.findall(r"\]\(([^)]+)\)", markdown):
        assert (report.folder / link).resolve().is_file(), link


def test_every_number_of_the_ranking_is_linked_to_its_artifact(page):
    table = page[page.index('id="m0-ranking"') :]
    body = table[table.index("<tbody>") : table.index("</tbody>")]
    for row in body.split("<tr>")[1:4]:
        cells = re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, re.DOTALL)
        assert all("#artifact-retrieval_metrics-" in cell for number, cell in enumerate(cells) if number != 1)


def test_the_page_needs_nothing_from_elsewhere(page):
    tags = Tags(page)
    assert all(source.startswith("data:") for source in tags.of("img", "src"))
    assert tags.of("script", "src") == []
    assert tags.of("link", "href") == ["data:,"]
    assert "default-src 'none'" in page
    assert not re.search(r"url\((?!#)", page)
    assert page.count("<svg") >= 6


def test_captions_file_names_and_names_are_text(page, markdown):
    assert CODE.split(" | ")[0] not in page
    assert "&lt;script&gt;document.title" in page
    assert "&lt;b&gt;" in page
    assert "<script>document" not in markdown
    assert "<img src=x" not in markdown
    assert len(Tags(page).of("img", "onerror")) == 0


def test_the_same_inputs_give_the_same_bytes(factory, report, tmp_path):
    before = {name: report.file(name).read_bytes() for name in report.manifest.files}
    report.folder.rename(tmp_path / "first")
    again = make_report(factory)
    assert not again.reused
    assert {name: again.file(name).read_bytes() for name in again.manifest.files} == before
    assert str(factory.store.root) not in before["report.html"].decode()
    assert again.manifest.data_version == report.manifest.data_version


def test_in_a_terminal_there_are_no_pictures_and_no_links(markdown):
    text = without_files(markdown)
    assert "charts/" not in text
    assert "](" not in text
    assert "## Recall@K" not in text
    assert "## Effect of each factor" in text
    assert "| retrieval\\_metrics" in text


def test_charts_have_their_figures_beside_them(page):
    tags = Tags(page)
    charts = [attributes for tag, attributes in tags.found if tag == "div" and attributes.get("class") == "chart"]
    assert len(charts) >= 6
    assert all(chart["aria-label"] for chart in charts)
    assert page.count("<summary>The figures of this chart</summary>") == len(charts)


def test_a_recipe_alone_has_a_report_too(tmp_path):
    from asked_factory import captioned, measured, write_factory

    factory = captioned(write_factory(tmp_path, recipes={"only": {"captioners": []}}))
    measured(factory, "only", noise=1.0)
    page = make_report(factory).file("report.html").read_text()
    assert "no factor&#39;s effect can be isolated" in page
    assert "Queries on" not in page
