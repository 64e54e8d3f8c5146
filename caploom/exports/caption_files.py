"""Captions as a file that other tools read: JSON lines, Parquet, text, or a text file per image.

Unlike an export of a training set this is what captioners said, without raw captions, mixes and filters.
"""

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path, PurePosixPath

import pyarrow as pa
import pyarrow.parquet as pq

from caploom.errors import ExportError
from caploom.stages.graph import Graph
from caploom.stages.raw_pairs import ingested_shards, read_pairs
from caploom.stages.stage import Ref
from caploom.storage.records import schema_of
from caploom.storage.tables import read_table
from caploom.storage.writing import draft_beside, full_disk_explained

CAPTION_FILE = schema_of(image=pa.string(), caption=pa.string(), captioner=pa.string(), image_id=pa.string())
"""The columns of a row, in every form that has columns; `image` is the path that the source names."""

_ROWS_AT_ONCE = 50_000


def write_captions(graph: Graph, captioners: Iterable[str], shear: str, out: Path) -> int:
    """Write the captions, as a shear keeps them, of all shards; returns how many there are.

    `out` says the form by its ending: `.jsonl`, `.parquet`, `.txt` (path, tab, caption); without an ending it is a
    folder with a text file per image, at the image's own relative path and with a line per captioner. Files appear
    whole or not at all. Raises `ExportError` for another ending, `MissingArtifactError` before all is sheared.

    Example:
        >>> write_captions(Graph(factory), ["colours"], "first", Path("captions.jsonl"))
        15
    """
    write = _writer(out)
    with full_disk_explained(out.parent, "captions cannot be written", "make room and run again"):
        if not out.suffix:
            return write(_rows(graph, list(captioners), shear), out)
        out.parent.mkdir(parents=True, exist_ok=True)
        draft = draft_beside(out)
        try:
            count = write(_rows(graph, list(captioners), shear), draft)
            draft.replace(out)
            return count
        finally:
            draft.unlink(missing_ok=True)


def check_form(out: Path) -> None:
    """Raise `ExportError` unless captions can be written to this path."""
    _writer(out)
    if out.is_dir() != (not out.suffix) and out.exists():
        what = "a folder" if out.is_dir() else "a file"
        raise ExportError(f"{out}: it is {what} already; name another path, or one with another ending.")


def _writer(out: Path) -> Callable[[Iterator[pa.Table], Path], int]:
    forms = {".jsonl": _json_lines, ".parquet": _parquet, ".txt": _lines, "": _text_files}
    if out.suffix.lower() not in forms:
        raise ExportError(
            f"{out}: captions are written as .jsonl, .parquet or .txt, or into a folder (a name without an ending) as "
            "one .txt per image; change the ending."
        )
    return forms[out.suffix.lower()]


def _rows(graph: Graph, captioners: list[str], shear: str) -> Iterator[pa.Table]:
    """Captions of schema CAPTION_FILE, a table per shard and captioner, in the order of the shard's images."""
    for pairs in ingested_shards(graph):
        shard = pairs.manifest.configuration["shard"]
        images = read_pairs(pairs).select(["image_id", "image"])
        first = images.group_by("image_id", use_threads=False).aggregate([("image", "first")])
        names = dict(zip(first["image_id"].to_pylist(), first["image_first"].to_pylist(), strict=True))
        for captioner in captioners:
            sheared = graph.require(Ref("sheared", (captioner, shear, shard)))
            table = read_table(sheared.file("sheared.parquet"), ["image_id", "caption"])
            ids = table["image_id"].to_pylist()
            columns = [[names[each] for each in ids], table["caption"], [captioner] * len(ids), ids]
            yield pa.table(columns, names=CAPTION_FILE.names).cast(CAPTION_FILE)


def _json_lines(tables: Iterator[pa.Table], out: Path) -> int:
    count = 0
    with out.open("w", encoding="utf-8") as file:
        for table in tables:
            file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in table.to_pylist())
            count += len(table)
    return count


def _parquet(tables: Iterator[pa.Table], out: Path) -> int:
    count = 0
    with pq.ParquetWriter(out, CAPTION_FILE) as file:
        for table in tables:
            file.write_table(table, row_group_size=_ROWS_AT_ONCE)
            count += len(table)
    return count


def _lines(tables: Iterator[pa.Table], out: Path) -> int:
    count = 0
    with out.open("w", encoding="utf-8") as file:
        for row in (row for table in tables for row in table.to_pylist()):
            file.write(f"{_on_one_line(row['image'])}\t{_on_one_line(row['caption'])}\n")
            count += 1
    return count


def _text_files(tables: Iterator[pa.Table], out: Path) -> int:
    count, begun = 0, set()
    for row in (row for table in tables for row in table.to_pylist()):
        path = out / _beside(row["image"])
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a" if path in begun else "w", encoding="utf-8") as file:
            file.write(_on_one_line(row["caption"]) + "\n")
        begun.add(path)
        count += 1
    return count


def _beside(image: str) -> str:
    """The relative path of an image's text; raises `ExportError` when it would leave the folder."""
    path = PurePosixPath(image)
    if path.is_absolute() or ".." in path.parts or not path.name:
        raise ExportError(f"{image}: its text would lie outside the folder; write .jsonl or .parquet instead.")
    return str(path.with_suffix(".txt"))


def _on_one_line(text: str) -> str:
    return " ".join(text.split())
