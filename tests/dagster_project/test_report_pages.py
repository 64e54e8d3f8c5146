"""The server of reports: what it serves, and what of the disk it doesn't."""

import urllib.error
import urllib.request

import pytest

from caploom.report.make import KIND
from caploom.storage.opening import open_store
from caploom.storage.store import Plan
from dagster_project.report_pages import serving_reports


def ask(url):
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return answer.status, answer.url, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, url, error.read().decode()


@pytest.fixture
def store(tmp_path):
    store = open_store(tmp_path / "store")
    (tmp_path / "store" / "secret.html").write_text("secret")
    (tmp_path / "outside.html").write_text("secret")

    def build(draft):
        (draft.folder / "report.html").write_text("<h1>the report</h1>")
        (draft.folder / "charts").mkdir()
        (draft.folder / "charts" / "recall.svg").write_text("<svg/>")
        (draft.folder / "model.safetensors").write_bytes(b"secret")

    store.make(Plan(kind=KIND, code_version="1", configuration={}), build)
    return store


@pytest.fixture
def url(store):
    with serving_reports(store.root, "127.0.0.1") as url:
        yield url


@pytest.fixture
def address(store):
    (report,) = store.list(KIND)
    return report.manifest.address


def test_the_first_page_leads_to_the_newest_report(url, address):
    status, where, page = ask(url)
    assert (status, page) == (200, "<h1>the report</h1>")
    assert where == f"{url}{address}/report.html"


def test_a_reports_charts_and_manifests_are_served(url, address):
    assert ask(f"{url}{address}/charts/recall.svg")[0] == 200
    assert ask(f"{url}{address}/manifest.json")[2].startswith("{")


@pytest.mark.parametrize(
    "path",
    [
        "secret.html",
        "../outside.html",
        "%2e%2e/outside.html",
        "ablation_report/../../outside.html",
        "{address}/model.safetensors",
        "{address}/../../secret.html",
        "{address}/not_in_the_manifest.html",
        "//etc/passwd",
        "dagster/dagster.yaml",
    ],
)
def test_nothing_else_of_the_disk_is_served(url, address, store, path):
    (store.root / address / "not_in_the_manifest.html").write_text("secret")
    status, _, said = ask(url + path.format(address=address))
    assert status == 404
    assert "secret" not in said


def test_a_link_out_of_an_artifact_is_not_followed(url, address, store, tmp_path):
    page = store.root / address / "report.html"
    page.unlink()
    page.symlink_to(tmp_path / "outside.html")
    assert ask(f"{url}{address}/report.html")[0] == 404


def test_before_there_is_a_report_the_page_says_what_makes_one(tmp_path):
    with serving_reports(open_store(tmp_path / "empty").root, "127.0.0.1") as url:
        status, _, said = ask(url)
    assert status == 404
    assert "materialize ablation_report" in said
