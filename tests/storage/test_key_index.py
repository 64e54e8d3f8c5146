import multiprocessing
import os
import shutil
import sqlite3
import subprocess
import time

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from caploom.errors import StoreError
from caploom.storage.key_index import INDEX_FILE, KeyIndex
from caploom.storage.store import Plan, Store

SHARDS = 20
UNINDEXED = 10


def make(store, shard, keys, version="1"):
    plan = Plan(kind="kind", name=("source", shard), code_version=version, configuration={})

    def build(draft):
        pq.write_table(
            pa.table({"key": pa.array(keys, pa.string()), "other": ["text"] * len(keys)}), draft.folder / "t"
        )

    return store.make(plan, build).manifest.address


def index_of(store):
    return KeyIndex(store, "kind/source", "t", "key", skip=["pending"], unindexed=UNINDEXED)


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path)


def fill(folder):
    """Shard 7 has `7-0`, `7-1` and the key that all have."""
    for n in range(SHARDS):
        make(Store(folder), f"shard-{n:03d}", [f"{n}-0", f"{n}-1", "common"])


@pytest.fixture
def filled(made_once, store):
    """The address of each shard."""
    # As if just written: what changed a moment ago may change again with the same time stamp.
    shutil.copytree(made_once("key-index", fill), store.root, copy_function=shutil.copyfile, dirs_exist_ok=True)
    for path in store.root.rglob("*"):
        path.touch()
    return store.addresses("kind", "source")


def test_nothing_is_held_by_nobody(store):
    assert index_of(store).holders(["a"]) == []
    make(store, "shard-000", ["a"])
    assert index_of(store).holders([]) == []


def test_few_artifacts_are_all_named_and_nothing_is_written_down(store, tmp_path):
    made = [make(store, f"shard-{n}", [f"{n}"]) for n in range(3)]
    assert sorted(index_of(store).holders(["1"])) == sorted(made)
    assert not (tmp_path / "kind" / "source" / INDEX_FILE).exists()


def test_of_many_only_those_that_hold_a_key_are_named(store, filled):
    index = index_of(store)
    assert index.holders(["7-1"]) == [filled[7]]
    assert sorted(index.holders(["7-1", "7-0", "17-1", "nobody's"])) == sorted([filled[7], filled[17]])
    assert sorted(index.holders(["common"])) == sorted(filled)
    assert index.holders(["nobody's"]) == []


def test_artifacts_made_later_are_named_to_every_question_until_they_are_many(store, filled):
    index = index_of(store)
    assert index.holders(["new"]) == []
    later = make(store, "later", ["new"])
    again = make(store, "shard-007", ["new too"], version="2")  # in a folder that was looked into before
    assert sorted(index.holders(["nobody's"])) == sorted([later, again])
    more = [make(store, f"more-{n}", [f"more {n}"]) for n in range(SHARDS)]
    assert index.holders(["new"]) == [later]
    assert index.holders(["more 5"]) == [more[5]]
    assert index.holders(["new too"]) == [again]


def test_a_folder_that_has_not_changed_is_not_looked_into_again(store, filled, monkeypatch):
    for path in store.path("kind/source").iterdir():
        os.utime(path, (time.time() - 60, time.time() - 60))
    index = index_of(store)
    index.holders(["7-1"])
    looked = []
    monkeypatch.setattr(KeyIndex, "_finished", lambda _, shards: looked.extend(shards) or {})
    assert index.holders(["7-1"]) == [filled[7]]
    assert looked == []


def test_what_is_no_shard_or_unfinished_is_not_named(store, filled, tmp_path):
    folder = tmp_path / "kind" / "source"
    for name in ("pending/shard-1/x", ".hidden/x", "shard-007/.draft.1.abc", "shard-007/no-manifest"):
        (folder / name).mkdir(parents=True)
        if name != "shard-007/no-manifest":
            (folder / name / "manifest.json").write_text("{}")
    (folder / "a-file").write_text("")
    assert index_of(store).holders(["7-1"]) == [filled[7]]
    assert len(set(index_of(store).holders(["common"]))) == SHARDS


def test_an_artifact_made_again_is_known_by_what_it_holds_now(store, filled):
    index = index_of(store)
    index.holders(["7-1"])
    shutil.rmtree(store.path(filled[7]))
    assert make(store, "shard-007", ["other"]) == filled[7]
    assert filled[7] in index.holders(["other"])


@pytest.mark.parametrize("damage", ["no database", "other version", "empty"])
def test_an_index_that_cannot_be_used_is_made_again(store, filled, tmp_path, damage):
    index_of(store).holders(["7-1"])
    path = tmp_path / "kind" / "source" / INDEX_FILE
    if damage == "no database":
        path.write_bytes(b"something else" * 1000)
    elif damage == "empty":
        path.write_bytes(b"")
    else:
        with sqlite3.connect(path) as connection:
            connection.execute("pragma user_version = 99")
        connection.close()
    assert index_of(store).holders(["7-1"]) == [filled[7]]
    assert index_of(store).holders(["nobody's"]) == []


def test_an_index_damaged_inside_is_named_with_what_to_do(store, filled, tmp_path):
    index_of(store).holders(["7-1"])
    path = tmp_path / "kind" / "source" / INDEX_FILE
    data = bytearray(path.read_bytes())
    data[4096:] = bytes(len(data) - 4096)
    path.write_bytes(data)
    with pytest.raises(StoreError, match=r"\.keys\.sqlite: the index of keys cannot be read .* delete the file"):
        index_of(store).holders(["7-1"])
    path.unlink()
    assert index_of(store).holders(["7-1"]) == [filled[7]]


def test_a_table_that_is_gone_holds_nothing_and_a_damaged_one_is_named(store, filled):
    (store.path(filled[3]) / "t").unlink()
    assert filled[3] not in index_of(store).holders(["common"])
    (store.path("kind/source") / INDEX_FILE).unlink()
    (store.path(filled[4]) / "t").write_bytes(b"no Parquet")
    with pytest.raises(StoreError, match=r"shard-004.* delete the table's folder"):
        index_of(store).holders(["common"])


@pytest.mark.parametrize("indexed", [False, True])
def test_who_may_only_read_the_store_gets_an_answer(store, filled, tmp_path_factory, indexed):
    if indexed:
        index_of(store).holders(["7-1"])
    read_only = tmp_path_factory.mktemp("read-only")
    mounted = subprocess.run(["mount", "--bind", str(store.root), str(read_only)], capture_output=True)
    if mounted.returncode != 0:
        pytest.skip("only root may mount the read-only folder that this test reads")
    try:
        subprocess.run(["mount", "-o", "remount,ro,bind", str(read_only)], check=True)
        found = index_of(Store(read_only)).holders(["7-1"])
    finally:
        subprocess.run(["umount", str(read_only)], check=True)
    assert filled[7] in found
    assert len(found) == (1 if indexed else SHARDS)


def _ask(root, key):
    return index_of(Store(root)).holders([key])


def test_processes_that_ask_at_once_get_the_same_answers(store, filled, tmp_path):
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        answers = pool.starmap(_ask, [(tmp_path, f"{n}-0") for n in range(12)])
    assert answers == [[filled[n]] for n in range(12)]
