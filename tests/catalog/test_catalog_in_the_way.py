"""The catalog is never in the way: whatever lies in the store, may not be written there, or happens meanwhile."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import duckdb
import pytest
from asked_factory import copied, make_captioned

from caploom.catalog import files as catalog_files
from caploom.catalog.catalog import open_catalog
from caploom.catalog.files import CATALOG_FILE
from caploom.catalog.query import ask
from caploom.catalog.schema import VIEWS
from caploom.errors import StoreError
from caploom.storage.opening import open_store
from caploom.storage.store import Plan, Store


@pytest.fixture
def store(own_captioned):
    """Two shards with captions."""
    return own_captioned.store


def numbers(store, query):
    with open_catalog(store) as catalog:
        return catalog.execute(query).fetchall()


def make(store, number):
    store.make(Plan(kind="ablation_report", code_version="1", configuration={"number": number}), lambda draft: None)


def test_what_is_being_written_counts_for_nothing(store):
    half = next(store.root.glob("captions/*/*/*/*/captions.parquet"))
    draft = half.parent.with_name(f".{half.parent.name}.1.abcdef12")
    draft.mkdir()
    (draft / "captions.parquet").write_bytes(b"PAR1 half")
    (draft / "manifest.json").write_bytes(b"{}")
    assert numbers(store, "select count(*) from ledger") == [(15,)]
    assert numbers(store, "select count(*) from damaged") == [(0,)]


def test_pairs_that_cannot_be_read_are_named_and_hide_no_others(store):
    broken, whole = sorted(store.root.glob("raw_pairs/*/*/*/pairs.parquet"))
    size = len(broken.read_bytes())
    broken.write_bytes(os.urandom(size))
    ((address, path, problem),) = numbers(store, "select address, path, problem from damaged")
    assert path == str(broken)
    assert address == broken.parent.relative_to(store.root).as_posix()
    assert "cannot be read as a table" in problem
    assert numbers(store, "select count(*), count(distinct shard) from pairs") == [(5, 1)]
    assert numbers(store, "select distinct address from images") == [(whole.parent.relative_to(store.root).as_posix(),)]


def test_a_file_that_is_gone_is_nobodys_concern_until_it_is_read(store):
    for file in store.root.glob("raw_pairs/*/shard-00000/*/pairs.parquet"):
        file.unlink()
    assert numbers(store, "select count(*) from manifests where kind = 'raw_pairs'") == [(2,)]
    assert numbers(store, "select distinct shard from images") == [("shard-00001",)]
    assert numbers(store, "select distinct shard from pairs") == [("shard-00001",)]


@pytest.mark.parametrize("name", ["it's [a] store*", "with space", "umläut 写", 'quo"te', "per%cent"])
def test_every_view_works_in_a_folder_with_any_name(made_once, tmp_path, name):
    (tmp_path / name).mkdir()
    store = copied(made_once("captioned", make_captioned), tmp_path / name).store
    with open_catalog(store) as catalog:
        asked = {view.name: ask(catalog, store, f"select count(*) from {view.name}").rows for view in VIEWS}
    assert asked["ledger"] == [(15,)]
    assert asked["pairs"] == [(15,)]
    assert asked["failures"] == [(1,)]
    assert (store.root / CATALOG_FILE).is_file()


def test_a_folder_that_duckdb_cannot_write_a_file_into_has_a_catalog_for_the_moment(made_once, tmp_path):
    (tmp_path / "what?").mkdir()
    store = copied(made_once("captioned", make_captioned), tmp_path / "what?").store
    assert numbers(store, "select count(*) from ledger") == [(15,)]
    assert sorted(path.name for path in store.root.iterdir() if "catalog.duckdb" in path.name) == []


def test_a_store_that_may_only_be_read_has_one_too(store, tmp_path):
    read_only = tmp_path / "read-only"
    read_only.mkdir()
    mounted = subprocess.run(["mount", "--bind", "-o", "ro", str(store.root), str(read_only)], capture_output=True)
    if mounted.returncode != 0:
        pytest.skip("only root may mount the read-only folder that this test reads")
    subprocess.run(["mount", "-o", "remount,ro,bind", str(read_only)], check=True)
    try:
        assert numbers(Store(read_only), "select count(*) from ledger") == [(15,)]
        assert not (read_only / CATALOG_FILE).exists()
    finally:
        subprocess.run(["umount", str(read_only)], check=True)


def test_a_full_disk_keeps_nobody_from_asking(small_disk):
    store = open_store(small_disk / "store")
    make(store, 1)
    filler = small_disk / "filler"
    with filler.open("wb", buffering=0) as file, pytest.raises(OSError, match="No space"):
        for _ in range(300):
            file.write(b"x" * 4096)
    assert numbers(store, "select count(*) from manifests") == [(1,)]
    assert not (store.root / CATALOG_FILE).exists()


def test_a_reader_keeps_what_it_opened_and_the_next_one_sees_more(store):
    with open_catalog(store) as earlier:
        before = earlier.execute("select count(*) from manifests").fetchone()[0]
        make(store, 1)
        with open_catalog(store) as later:
            assert later.execute("select count(*) from manifests").fetchone() == (before + 1,)
            assert earlier.execute("select count(*) from manifests").fetchone() == (before,)
    assert numbers(store, "select count(*) from manifests") == [(before + 1,)]


def test_a_store_that_was_moved_has_a_new_catalog(store, tmp_path):
    numbers(store, "select 1")
    moved = Store(tmp_path / "moved")
    store.root.rename(moved.root)
    ((root,),) = numbers(moved, "select root from about")
    assert root == str(moved.root)
    assert numbers(moved, "select count(*) from ledger") == [(15,)]


def test_writes_of_a_plain_session_do_not_outlive_the_next_refresh(store):
    numbers(store, "select 1")
    script = (
        "import duckdb, os, sys; c = duckdb.connect(sys.argv[1]); c.execute('create table mine as select 1');"
        " c.execute('delete from manifests'); os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", script, str(store.root / CATALOG_FILE)], check=False)
    assert (store.root / f"{CATALOG_FILE}.wal").exists()
    make(store, 1)
    assert numbers(store, "select count(*) from manifests where kind = 'captions'") == [(2,)]
    assert not (store.root / f"{CATALOG_FILE}.wal").exists()


def test_a_block_that_has_rotted_ends_in_a_sentence_and_a_new_catalog(store):
    numbers(store, "select 1")
    file = store.root / CATALOG_FILE
    whole = file.read_bytes()
    rotten = []
    for start in range(len(whole) // 2, len(whole) - 4096, 131_072):
        file.write_bytes(whole[:start] + os.urandom(4096) + whole[start + 4096 :])
        try:
            rows = numbers(store, "select bit_xor(hash(columns(*))) from manifests")
        except StoreError as error:
            rotten.append(str(error))
            rows = numbers(store, "select bit_xor(hash(columns(*))) from manifests")
        assert len(rows) == 1
    assert rotten
    assert all("the catalog was damaged" in each and "run the command again" in each for each in rotten)


def test_a_mistake_in_a_query_costs_no_catalog(store):
    numbers(store, "select 1")
    with pytest.raises(duckdb.Error, match="nothing"), open_catalog(store) as catalog:
        catalog.execute("select nothing from manifests")
    assert (store.root / CATALOG_FILE).is_file()


def test_a_refresh_that_is_killed_leaves_the_old_one_and_is_swept(store):
    numbers(store, "select 1")
    before = (store.root / CATALOG_FILE).read_bytes()
    make(store, 1)
    script = (
        "import sys, time; from pathlib import Path\n"
        "from caploom.catalog import catalog; from caploom.storage.store import Store\n"
        "def wait(*_): print('writing', flush=True); time.sleep(60)\n"
        "catalog.create_views = wait\n"
        "with catalog.open_catalog(Store(Path(sys.argv[1]))): pass\n"
    )
    with subprocess.Popen([sys.executable, "-c", script, str(store.root)], stdout=subprocess.PIPE) as refresh:
        assert refresh.stdout.readline() == b"writing\n"
        refresh.send_signal(signal.SIGKILL)
        refresh.wait()
    assert (store.root / CATALOG_FILE).read_bytes() == before
    assert list(store.root.glob(f".{CATALOG_FILE}.*"))
    assert numbers(store, "select count(*) from manifests where kind = 'ablation_report'") == [(1,)]
    assert not list(store.root.glob(f".{CATALOG_FILE}.*"))


def test_a_link_that_leads_back_into_the_store_does_not_hang_it(store):
    (store.root / "captions" / "again").symlink_to(store.root / "captions")
    started = time.monotonic()
    assert len(catalog_files.stamps(Path(store.root))) >= 6
    assert time.monotonic() - started < 5
