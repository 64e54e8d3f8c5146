import subprocess
import sys

import pytest

from caploom.errors import MissingArtifactError, StoreError
from caploom.storage.manifest import MANIFEST, RowCount
from caploom.storage.opening import open_store
from caploom.storage.store import Plan


@pytest.fixture
def store(tmp_path):
    return open_store(tmp_path / "store")


def plan(**configuration):
    return Plan(kind="things", name=("a",), code_version="1", configuration=configuration)


def write(draft, text="hello"):
    (draft.folder / "thing.txt").write_text(text)


def test_an_artifact_is_made_once_and_then_found(store):
    first = store.make(plan(size=1), write)
    again = store.make(plan(size=1), lambda draft: pytest.fail("it was made twice"))
    assert (first.reused, again.reused) == (False, True)
    assert again.file("thing.txt").read_text() == "hello"
    assert again.manifest.files["thing.txt"].size == 5


def test_another_configuration_is_another_artifact_and_the_old_one_stays(store):
    old, new = store.make(plan(size=1), write), store.make(plan(size=2), lambda draft: write(draft, "new"))
    assert old.folder != new.folder
    assert [artifact.folder for artifact in store.list("things")] == sorted([old.folder, new.folder])


def test_equal_content_has_an_equal_data_version(store):
    one, other = store.make(plan(size=1), write), store.make(plan(size=2), write)
    assert one.data_version == other.data_version
    assert one.manifest.fingerprint != other.manifest.fingerprint


def test_a_failing_build_leaves_nothing(store):
    def fail(draft):
        write(draft)
        raise RuntimeError("half-way")

    with pytest.raises(RuntimeError):
        store.make(plan(), fail)
    assert store.find(plan()) is None
    assert list((store.root / "things" / "a").iterdir()) == []


def test_a_killed_process_leaves_nothing_that_counts_and_the_next_attempt_sweeps_it(store):
    script = f"""
import os, signal
from caploom.storage.store import Plan, Store
plan = Plan(kind="things", name=("a",), code_version="1", configuration={{}})
with Store({str(store.root)!r}).writing(plan) as draft:
    (draft.folder / "thing.txt").write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == -9
    left_over = list((store.root / "things" / "a").iterdir())
    assert len(left_over) == 1
    assert store.find(plan()) is None
    store.make(plan(), write)
    assert [path.name for path in (store.root / "things" / "a").iterdir()] == [plan().fingerprint]


def test_a_folder_without_a_manifest_is_unfinished_and_made_again(store):
    store.make(plan(), write)
    (store.path(plan().address) / MANIFEST).unlink()
    assert store.find(plan()) is None
    assert not store.make(plan(), lambda draft: write(draft, "again")).reused
    assert store.find(plan()).file("thing.txt").read_text() == "again"


def test_rows_that_do_not_add_up_are_never_written(store):
    def lose_a_row(draft):
        draft.rows = RowCount(unit="rows", rows_in=3, rows_out=2, rows_failed=0)

    with pytest.raises(StoreError, match="3 rows came in, 2 went out and 0 failed"):
        store.make(plan(), lose_a_row)
    assert store.find(plan()) is None


def test_a_damaged_manifest_is_said_with_its_file(store):
    artifact = store.make(plan(), write)
    (artifact.folder / MANIFEST).write_text('{"kind": 3')
    with pytest.raises(StoreError, match=r"manifest\.json: it is not a manifest"):
        store.find(plan())


def test_a_missing_artifact_says_what_makes_it(store):
    with pytest.raises(MissingArtifactError, match=r"things/a has not been made .*: materialize things first"):
        store.require(plan(), make_with="materialize things")


def test_a_file_that_is_gone_is_said(store):
    artifact = store.make(plan(), write)
    (artifact.folder / "thing.txt").unlink()
    with pytest.raises(StoreError, match=r"thing\.txt: the manifest next to it names this file but it is gone"):
        artifact.file("thing.txt")


def test_no_address_leaves_the_store(store):
    with pytest.raises(StoreError, match="leaves the store"):
        store.read("../elsewhere")


def test_a_manifest_says_what_made_the_artifact(store):
    manifest = store.make(plan(size=1), write).manifest
    assert manifest.configuration == {"size": 1}
    assert manifest.code_version == "1"
    assert "pyarrow" in manifest.packages
    assert manifest.caploom_version
