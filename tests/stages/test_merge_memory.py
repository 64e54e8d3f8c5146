"""The merge's bound of memory: honoured, and without a trace in what is written."""

import subprocess
import sys

import pytest
from large_tables import tables, write_tables

from caploom.common.hashing import file_sha256
from caploom.errors import ConfigError, StoreError, TrainingError
from caploom.storage.tables import write_table
from caploom.training_set.buckets import Buckets, count_buckets
from caploom.training_set.filter_context import FilterContext, Passes
from caploom.training_set.filter_settings import MaxRepeats, MinWords
from caploom.training_set.filters import prepare_filters
from caploom.training_set.settings import MixSettings
from caploom.training_set.write import write_training_set

MEMORY = 100_000_000
OVERHEAD = 400_000_000
"""As the setting's description says: what is loaded, and the file that is written."""

MERGE = """
import sys
from pathlib import Path
from caploom.storage.store import Store
from caploom.training_set.buckets import Buckets
from caploom.training_set.filters import PreparedFilters
from caploom.stages.training_set import write_training_set
from caploom.training_set.settings import MixSettings

tables, folder, memory = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
pairs = sorted(tables.glob("pairs-*"))
sheared = [(path.name.split("-")[0], path) for path in sorted(tables.glob("c*"))]
with Buckets(pairs, sheared, folder, seed=0, memory=memory) as buckets:
    write_training_set(buckets, PreparedFilters("test"), MixSettings(), folder, json=True)
    count = buckets.count
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(int(peak.split()[1]) * 1024, count)
"""


def merged_elsewhere(tables, folder, memory):
    """The peak of a process that merges, its buckets, and the hashes of what it wrote."""
    folder.mkdir()
    command = [sys.executable, "-c", MERGE, str(tables), str(folder), str(memory)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    peak, count = map(int, done.stdout.split())
    return peak, count, {path.name: file_sha256(path) for path in folder.iterdir()}


@pytest.mark.slow
def test_a_merge_of_several_times_its_memory_stays_within_it(tmp_path):
    write_tables(tmp_path / "tables", images=200_000, captioners=2, words=80)
    peak, count, files = merged_elsewhere(tmp_path / "tables", tmp_path / "little", MEMORY)
    text = sum(path.stat().st_size for path in (tmp_path / "little").glob("training.json"))
    assert text > 4 * MEMORY
    print(f"peak {peak / 1e6:.0f} MB for {text / 1e6:.0f} MB of text in {count} buckets")
    assert peak < MEMORY + OVERHEAD
    _, other_count, same = merged_elsewhere(tmp_path / "tables", tmp_path / "much", 10**10)
    assert files == same
    assert count != other_count


def files_of(tables, folder, memory, steps):
    folder.mkdir()
    pairs, sheared = sorted(tables.glob("pairs-*")), [("c0", path) for path in sorted(tables.glob("c0-*"))]
    with Buckets(pairs, sheared, folder, seed=0, memory=memory) as buckets:
        filters = prepare_filters(steps, Passes(buckets.scan), FilterContext(None, "r", ["c0"]))
        write_training_set(buckets, filters, MixSettings(strategy="concatenate"), folder, json=True)
    return buckets.count, {path.name: file_sha256(path) for path in folder.iterdir()}


def test_how_much_memory_there_is_does_not_show_in_what_filters_dropped(tmp_path):
    (tmp_path / "t").mkdir()
    for number, (captioner, table) in enumerate(tables(12_000, 1, words=2)):
        name = "raw_caption" if captioner is None else "caption"
        captions = enumerate(table[name].to_pylist())
        short = [text.split()[0] if row % 3 == 0 else text for row, text in captions]
        table = table.set_column(table.schema.get_field_index(name), name, [short])
        write_table(table, tmp_path / "t" / f"{captioner or 'pairs'}-{number}.parquet")
    steps = [MinWords(min_words=2), MaxRepeats(max_repeats=1)]
    (few, one), (many, other) = (
        files_of(tmp_path / "t", tmp_path / f"out-{memory}", memory, steps) for memory in (10**9, 10**6)
    )
    assert few < many
    assert one == other
    assert "dropped-00000.parquet" in one


def test_too_little_memory_for_a_very_large_set_says_how_much_would_do():
    assert count_buckets(10**9, 10**9) == 60
    assert count_buckets(10**11, 10**9) == 1600
    with pytest.raises(
        TrainingError, match=r"memory_gb: 1 is too little to merge 1,000\.0 GB .* write (\d\.\d) or"
    ) as told:
        count_buckets(10**12, 10**9)
    enough = float(str(told.value).rpartition("write ")[2].split()[0])
    assert count_buckets(10**12, int(enough * 1e9)) <= 8192


def test_a_full_disk_while_rows_are_put_aside_is_said(tmp_path, small_disk):
    write_tables(tmp_path / "t", images=20_000, captioners=1)
    pairs = sorted((tmp_path / "t").glob("pairs-*"))
    with pytest.raises(StoreError, match=r"disk: the rows that wait for the merge do not fit there \(no space left"):
        Buckets(pairs, [], small_disk, seed=0)
    assert list(small_disk.iterdir()) == []


def test_rows_wait_in_the_folder_that_the_yaml_names(tmp_path):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(StoreError, match=r"file/spill: rows that wait .* change `merge\.spill`"):
        Buckets([], [], tmp_path / "file" / "spill", seed=0)


def test_the_yaml_s_merge(write_source, make_factory, tmp_path):
    source = write_source(1)
    merge = make_factory(source, merge={"memory_gb": 0.5, "spill": "fast"}).config.merge
    assert (merge.memory_bytes, merge.spill) == (500_000_000, tmp_path / "fast")
    with pytest.raises(ConfigError, match=r"merge\.memory_gb"):
        make_factory(source, merge={"memory_gb": 0})
