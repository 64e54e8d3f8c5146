import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import save_file

from caploom.common.hashing import file_sha256
from caploom.reproduce.differences import FileComparison, compare_files
from caploom.storage.manifest import FileRecord, Manifest
from caploom.storage.store import Artifact


def artifact(folder: Path) -> Artifact:
    names = sorted(path.name for path in folder.iterdir())
    files = {name: FileRecord(sha256=file_sha256(folder / name), size=(folder / name).stat().st_size) for name in names}
    manifest = Manifest(
        kind="k", address="k/0", fingerprint="0", data_version="0", code_version="1", configuration={}, files=files,
        started="2026-01-01T00:00:00+00:00", seconds=0.0,
    )  # fmt: skip
    return Artifact(folder, manifest, reused=True)


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    then, now = tmp_path / "then", tmp_path / "now"
    then.mkdir()
    now.mkdir()
    return then, now


def compared(folders: tuple[Path, Path]) -> list[FileComparison]:
    return compare_files(*(artifact(folder) for folder in folders))


TABLE = pa.table({"text": ["a red square", "a blue one", None], "seconds": [0.1, 0.2, 0.3], "ids": [[1], [2], [3]]})


def changed(column: str, values: list[object]) -> pa.Table:
    place = TABLE.schema.get_field_index(column)
    return TABLE.set_column(place, TABLE.schema.field(place), pa.array(values, TABLE.schema.field(place).type))


@pytest.mark.parametrize(
    ("name", "table", "sameness", "detail"),
    [
        ("captions.parquet", TABLE, "identical", ""),
        ("captions.parquet", changed("seconds", [0.1, 0.5, 0.3]), "measured", "but for how long each took (seconds)"),
        ("others.parquet", changed("seconds", [0.1, 0.5, 0.3]), "different", "seconds of row 1: 0.2 then, 0.5 now"),
        (
            "captions.parquet",
            changed("text", ["a red square", "a\x1b[31m cat", "x"]),
            "different",
            '2 of 3 rows differ; for example text of row 1: "a blue one" then, "a\\u001b[31m cat" now',
        ),
        ("captions.parquet", changed("ids", [[1], [2, 2], [3]]), "different", "ids of row 1: [2] then, [2, 2] now"),
        ("captions.parquet", TABLE.slice(0, 2), "different", "3 rows then, 2 now; for example row 2"),
        ("captions.parquet", TABLE.drop_columns(["ids"]), "different", "other columns: text, seconds, ids then"),
    ],
)
def test_tables(folders, name, table, sameness, detail):
    pq.write_table(TABLE, folders[0] / name)
    pq.write_table(table, folders[1] / name)
    (result,) = compared(folders)
    assert result.sameness == sameness
    assert detail in result.detail


def test_the_same_rows_written_otherwise_are_told_from_other_rows(folders):
    pq.write_table(TABLE, folders[0] / "t.parquet")
    pq.write_table(TABLE, folders[1] / "t.parquet", compression="zstd")
    (result,) = compared(folders)
    assert result.sameness == "different"
    assert result.detail.startswith("the same 3 rows, written by ")


def test_other_kinds_of_files(folders):
    for folder, value in zip(folders, (1.0, 1.5), strict=True):
        (folder / "a.json").write_text(json.dumps({"recalls": [0.1, value], "n": 3}))
        (folder / "b.md").write_text(f"# Report\nrecall {value}\n")
        save_file({"w": np.array([0.0, value]), "b": np.zeros(2)}, folder / "c.safetensors")
        (folder / "d.npy").write_bytes(bytes(int(2 * value)))
    (folders[0] / "e.txt").touch()
    (folders[1] / "f.txt").touch()
    details = {each.name: f"{each.sameness}: {each.detail}" for each in compared(folders)}
    assert details == {
        "a.json": "different: 1 value differs; for example recalls[1]: 1.0 then, 1.5 now",
        "b.md": 'different: 1 of 2 lines differ; for example line 2: "recall 1.0" then, "recall 1.5" now',
        "c.safetensors": "different: 1 of 2 weights differ, by up to 0.5 (w)",
        "d.npy": "different: 2 bytes then, 3 now, and not the same",
        "e.txt": "not made: this file was not rebuilt",
        "f.txt": "new: this file was not made then",
    }


def test_a_file_changed_since_is_compared_by_what_the_manifest_says(folders):
    for folder in folders:
        (folder / "a.json").write_text("[1]")
    then, now = (artifact(folder) for folder in folders)
    (folders[0] / "a.json").write_text("[2]")
    assert [each.sameness for each in compare_files(then, now)] == ["identical"]
    (folders[1] / "a.json").write_text("[3]")
    (result,) = compare_files(then, artifact(folders[1]))
    assert result.sameness == "different"
    assert "no longer there to compare with" in result.detail
