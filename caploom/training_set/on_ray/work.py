"""The tasks of a merge: divide tables into buckets, finish a bucket, write a file. Each may be repeated."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from caploom.errors import StoreError
from caploom.storage.opening import open_store
from caploom.training_set.buckets import CAPTIONS, IMAGES, Bucket, Cutter, joined, text_bytes
from caploom.training_set.filter_context import Prepared
from caploom.training_set.filters import judge, reasons_of
from caploom.training_set.mixes import training_rows
from caploom.training_set.on_ray.exchange import Exchange
from caploom.training_set.row_files import caption_bytes, dropped_bytes, write_file
from caploom.training_set.settings import MixSettings
from caploom.training_set.spill import ranges, rows_of_pieces
from caploom.training_set.tally import Tally
from caploom.training_set.training_json import TrainingJson

_BLOCK_ROWS = 4096
_COPIED = 8 * 2**20
JSON = "training.json"


@dataclass(frozen=True)
class Table:
    """A table of the store: of raw pairs where there is no captioner."""

    address: str
    name: str
    captioner: str | None


@dataclass(frozen=True)
class Job:
    """The settings shared by all tasks of a merge; the store is opened where they run."""

    store: Path | str
    exchange: Exchange
    sources: Sequence[str]
    seed: int

    def file(self, table: Table) -> Path:
        """The file of a table, on the machine where this is called."""
        self.exchange.check()
        artifact = open_store(self.store).read(table.address)
        if artifact is None:
            raise StoreError(f"{table.address}: it was there when the merge began but is gone; rebuild it.")
        return artifact.file(table.name)


@dataclass(frozen=True)
class Cut:
    """Divided tables: their number of rows, and where in the exchange's files each bucket's pieces are."""

    number: int
    rows_in: int
    images: list[np.ndarray]
    captions: list[np.ndarray]


@dataclass(frozen=True)
class Finished:
    """A finished bucket: its counts, and the bytes of each row that it wrote."""

    tally: Tally
    seen: int
    dropped: dict[str, int]
    rows: np.ndarray
    lost: np.ndarray


@dataclass(frozen=True)
class Piece:
    """Rows of a bucket that are part of a file."""

    bucket: int
    start: int
    end: int


def measure(job: Job, tables: Sequence[Table]) -> int:
    """The approximate memory of the rows of some tables."""
    return sum(text_bytes(table.captioner, job.file(table)) for table in tables)


def cut(job: Job, number: int, tables: Sequence[Table], count: int, flush_bytes: int) -> Cut:
    """Divide some tables into `count` buckets."""
    files = [job.file(table) for table in tables]
    with ExitStack() as stack:
        names = [stack.enter_context(job.exchange.writing(f"{kind}-{number}")) for kind in ("images", "captions")]
        images, captions = (stack.enter_context(path.open("wb")) for path in names)
        cutter = Cutter(job.sources, images, captions, seed=job.seed, count=count, flush_bytes=flush_bytes)
        for table, file in zip(tables, files, strict=True):
            cutter.add(table.captioner, file)
        cutter.flush()
    return Cut(number, cutter.rows_in, cutter.images.offsets, cutter.captions.offsets)


def read_bucket(job: Job, cuts: Sequence[Cut], number: int) -> Bucket:
    """A bucket's captions."""

    def rows(kind: str, schema: pa.Schema) -> pa.RecordBatch:
        pieces = (
            piece
            for each in cuts
            for piece in job.exchange.ranges(
                f"{kind}-{each.number}", list(ranges(each.images if kind == "images" else each.captions, number))
            )
        )
        return rows_of_pieces(pieces, schema)

    return joined(rows("images", IMAGES), rows("captions", CAPTIONS), job.sources, job.seed)


def look_at(job: Job, cuts: Sequence[Cut], look: Callable[[pa.Table], Any], number: int) -> Any:
    """A filter's findings in a bucket."""
    return look(read_bucket(job, cuts, number).captions)


def finish(
    job: Job,
    cuts: Sequence[Cut],
    judges: Sequence[tuple[str, Prepared]],
    mix: MixSettings,
    json: bool,
    number: int,
) -> Finished:
    """Filter and mix a bucket, and put its rows, the dropped captions and its JSON into the exchange."""
    bucket = read_bucket(job, cuts, number)
    kept, dropped = judge(bucket.captions, judges)
    rows = training_rows(kept, mix)
    tally = Tally()
    tally.reasons.update(repeated_caption=bucket.repeated, orphan_caption=bucket.orphans)
    tally.count(kept, rows)
    _leave(job, f"rows.{number}", rows)
    _leave(job, f"dropped.{number}", dropped)
    if json:
        with job.exchange.writing(f"{JSON}.{number}") as path, TrainingJson(path) as file:
            file.write(rows)
    return Finished(tally, len(bucket.captions), reasons_of(dropped), caption_bytes(rows), dropped_bytes(dropped))


def write(job: Job, kind: str, name: str, pieces: Sequence[Piece], schema: pa.Schema) -> None:
    """Write a file of the training set."""
    tables = [_rows(job, f"{kind}.{piece.bucket}", piece.start, piece.end) for piece in pieces]
    with job.exchange.writing(name) as path:
        write_file(tables, schema, path)


def write_json(job: Job, buckets: int) -> None:
    """Concatenate the buckets' JSON, as one writer would have written it."""
    empty = True
    with job.exchange.writing(JSON) as path, path.open("wb") as out:
        for number in range(buckets):
            with job.exchange.opened(f"{JSON}.{number}") as file:
                size = file.seek(0, 2) - len(b"[]\n")
                if size <= 0:
                    continue
                out.write(b"[" if empty else b",")
                empty = False
                file.seek(1)
                # Between "[" and "\n]\n".
                size -= 1
                while size:
                    data = file.read(min(size, _COPIED))
                    out.write(data)
                    size -= len(data)
        out.write(b"[]\n" if empty else b"\n]\n")


def _leave(job: Job, name: str, table: pa.Table) -> None:
    with job.exchange.writing(name) as path, pa.ipc.new_file(str(path), table.schema) as file:
        file.write_table(table.combine_chunks(), max_chunksize=_BLOCK_ROWS)


def _rows(job: Job, name: str, start: int, end: int) -> pa.Table:
    """Some rows of a table in the exchange; only the blocks that contain them are read."""
    first, last = start // _BLOCK_ROWS, (end - 1) // _BLOCK_ROWS
    with job.exchange.opened(name) as source, pa.ipc.open_file(source) as file:
        blocks = pa.Table.from_batches([file.get_batch(number) for number in range(first, last + 1)], file.schema)
    return blocks.slice(start - first * _BLOCK_ROWS, end - start)
