import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from caploom.captioning.ledger import Ledger, LedgerWriter
from caploom.errors import StoreError
from caploom.storage.key_index import INDEX_FILE, KeyIndex
from caploom.storage.records import CAPTIONS
from caploom.storage.store import Plan, Store
from caploom.storage.tables import table_of, write_table


def row(image_id, text="A square.", pair_id=None):
    return {
        "image_id": image_id,
        "captioner": "colours",
        "fingerprint": "f",
        "text": text,
        "tokens": 3,
        "finish_reason": "stop",
        "seconds": 0.1,
        "attempt": 1,
        "pair_id": pair_id,
    }


@pytest.fixture
def ledger(tmp_path):
    return Ledger(Store(tmp_path), "colours", "f")


def texts(table):
    return dict(zip(table.column("image_id").to_pylist(), table.column("text").to_pylist(), strict=True))


def test_what_was_appended_is_found_and_the_rest_is_missing(ledger):
    ledger.append("shard-0", [row("a"), row("b")])
    ledger.append("shard-1", [row("c")])
    assert texts(ledger.find(["c", "a", "x"])) == {"a": "A square.", "c": "A square."}
    assert ledger.missing(["x", "a", "y", "c"]) == ["x", "y"]


def test_an_empty_ledger_misses_everything(ledger):
    assert ledger.missing(["a"]) == ["a"]
    assert len(ledger.find(["a"])) == 0
    assert ledger.missing([]) == []


def test_an_image_that_two_runs_captioned_is_one_row_of_one_of_them(ledger):
    ledger.append("shard-0", [row("a", "First.")])
    ledger.append("shard-0", [row("a", "Second.")])
    found = ledger.find(["a"])
    assert len(found) == 1
    assert found.column("text")[0].as_py() in ("First.", "Second.")


def test_a_caption_of_another_raw_caption_is_not_the_one_asked_for(ledger):
    ledger.append("shard-0", [row("a", pair_id="a-old"), row("b", pair_id="b-1")])
    assert ledger.missing(["a", "b"], ["a-new", "b-1"]) == ["a"]


def test_captions_of_many_finished_shards_are_found_by_their_index(ledger, tmp_path, monkeypatch):
    monkeypatch.setitem(KeyIndex.__init__.__kwdefaults__, "unindexed", 3)
    store = Store(tmp_path)

    def finish(shard, rows, name="colours"):
        plan = Plan(kind="captions", name=(name, "f", shard), code_version="1", configuration={})
        store.make(plan, lambda draft: write_table(table_of(rows, CAPTIONS), draft.folder / "captions.parquet"))

    for number in range(6):
        finish(f"shard-{number}", [row(f"{number}-a", f"Of {number}."), row(f"{number}-b")])
    finish("shard-0", [row("0-a"), row("z", "Under an earlier name.")], name="paints")
    ledger.append("shard-7", [row("7-a", "Under way.")])
    wanted = ["5-a", "x", "2-b", "7-a", "z"]
    assert ledger.missing(wanted) == ["x"]
    found = texts(ledger.find(wanted))
    assert found == {"5-a": "Of 5.", "2-b": "A square.", "7-a": "Under way.", "z": "Under an earlier name."}
    assert (tmp_path / "captions" / "colours" / "f" / INDEX_FILE).is_file()
    finish("shard-7", [row("7-a"), row("7-b")])
    assert ledger.missing(["7-b", "x"]) == ["x"]


def test_reading_while_another_run_sweeps_its_parts_finds_all_others(ledger, tmp_path):
    """A shard's parts vanish again and again between listing and reading; the own shard's are always found."""
    ledger.append("own", [row(f"own-{number}") for number in range(50)])
    other, stop = Ledger(Store(tmp_path), "colours", "f"), threading.Event()

    def appear_and_vanish():
        while not stop.is_set():
            for number in range(5):
                other.append("other", [row(f"other-{number}")])
            other.sweep("other")

    thread = threading.Thread(target=appear_and_vanish)
    thread.start()
    try:
        for _ in range(60):
            assert len(ledger.find([f"own-{number}" for number in range(50)])) == 50
    finally:
        stop.set()
        thread.join()


def test_a_second_run_on_a_shard_waits_for_the_first(ledger, tmp_path):
    script = (
        "import sys, time; from pathlib import Path\n"
        "from caploom.captioning.ledger import Ledger; from caploom.storage.store import Store\n"
        "with Ledger(Store(Path(sys.argv[1])), 'colours', 'f').claimed('shard-0'):\n"
        "    print('claimed', flush=True); sys.stdin.readline()\n"
    )
    first = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert first.stdout.readline() == "claimed\n"
    claimed = threading.Event()

    def claim():
        with ledger.claimed("shard-0"):
            claimed.set()

    second = threading.Thread(target=claim)
    second.start()
    assert not claimed.wait(0.5)
    with Ledger(Store(tmp_path), "colours", "f").claimed("shard-1"):
        pass  # another shard is free
    first.kill()  # even a killed run lets go
    first.wait()
    assert claimed.wait(10)
    second.join()


def test_the_writer_keeps_everything_in_few_parts(ledger, tmp_path):
    with LedgerWriter(ledger, "shard-0") as writer:
        for number in range(500):
            writer.append([row(f"i{number}")])
    parts = list(tmp_path.rglob("*.parquet"))
    assert ledger.missing([f"i{number}" for number in range(500)]) == []
    assert len(parts) < 20


def test_the_writer_keeps_a_batch_at_once_and_not_only_at_the_end(ledger):
    with LedgerWriter(ledger, "shard-0") as writer:
        writer.append([row("a")])
        deadline = time.monotonic() + 5
        while ledger.missing(["a"]) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert ledger.missing(["a"]) == []


def test_a_run_that_fails_keeps_what_it_had(ledger):
    with pytest.raises(KeyboardInterrupt), LedgerWriter(ledger, "shard-0") as writer:
        for number in range(10):
            writer.append([row(f"i{number}")])
        raise KeyboardInterrupt
    assert ledger.missing([f"i{number}" for number in range(10)]) == []


def test_a_full_disk_is_said_and_what_was_kept_is_readable(small_disk):
    ledger, kept = Ledger(Store(small_disk / "store"), "colours", "f"), []

    def fill():
        with LedgerWriter(ledger, "shard-0") as writer:
            for number in range(400):
                # Text that does not compress.
                writer.append([row(f"i{number}", os.urandom(8_000).hex())])
                time.sleep(0.01)
                kept.append(f"i{number}")

    with pytest.raises(StoreError, match=r"cannot be written \(no space left on device\); make room"):
        fill()
    found = ledger.find(kept)
    assert 0 < len(found) < len(kept)
    assert not list(Path(small_disk).rglob(".*.parquet.*"))  # nothing half written
