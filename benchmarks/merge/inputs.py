"""Inputs of the merge benchmark: raw pairs and four captioners' captions, in Caploom's shards and the released JSON."""

import json
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from benchmarks.captions import CAPTIONERS, caption_column, raw_caption_column
from caploom.common.names import RAW_SOURCE
from caploom.storage.tables import read_batches, write_table
from caploom.training_set.buckets import word_counts
from caploom.training_set.order import image_ids

SHARD_ROWS = 10_000
CAPTIONS_AN_IMAGE = 1 + len(CAPTIONERS)
CHECKED = 100_000
"""Up to so many images every entry is compared with the peer's; above, they are counted."""


def write_inputs(folder: Path, sizes: list[int]) -> None:
    """Shards for the largest size, and the released code's JSON files, one per source, for sizes up to a million."""
    size = max(sizes)
    digests = np.random.default_rng(0)
    columns: dict[str, Iterator[pa.Array]] = {RAW_SOURCE: raw_caption_column(size, block=SHARD_ROWS)}
    for seed, captioner in enumerate(CAPTIONERS):
        columns[captioner] = caption_column(size, seed=seed, block=SHARD_ROWS)
    with_json = [each for each in sizes if each <= 1_000_000]
    files = {(each, source): _json_file(folder, each, source).open("w") for each in with_json for source in columns}
    for start in range(0, size, SHARD_ROWS):
        rows = min(SHARD_ROWS, size - start)
        ids = image_ids(digests.integers(0, 256, (rows, 32), dtype=np.uint8))
        images = pa.array([f"{number // 10_000:05d}/{number:09d}.jpg" for number in range(start, start + rows)])
        for source, blocks in columns.items():
            captions = next(blocks)
            write_table(_shard(source, ids, images, captions), _shard_file(folder, start // SHARD_ROWS, source))
            for each in with_json:
                if start < each:
                    entries = zip(images.to_pylist(), captions.to_pylist(), strict=True)
                    text = json.dumps([{"image": image, "caption": caption} for image, caption in entries])
                    files[each, source].write(("[" if start == 0 else ", ") + text[1:-1])
    for file in files.values():
        file.write("]")
        file.close()


def shard_files(folder: Path, size: int) -> tuple[list[Path], list[tuple[str, Path]]]:
    """The pairs' files and the captioners' of the first `size` images."""
    shards = range(-(-size // SHARD_ROWS))
    pairs = [_shard_file(folder, shard, RAW_SOURCE) for shard in shards]
    return pairs, [(source, _shard_file(folder, shard, source)) for source in CAPTIONERS for shard in shards]


def json_files(folder: Path, size: int) -> list[Path]:
    """The seed's files of the first `size` images, the raw one first."""
    return [_json_file(folder, size, source) for source in (RAW_SOURCE, *CAPTIONERS)]


def checksum(entries: Iterable[tuple[str, str]]) -> int:
    """A sum over (image, caption) in any order."""
    return sum(zlib.crc32(f"{image}\t{caption}".encode()) for image, caption in entries)


def rows_checksum(files: list[Path]) -> tuple[int, int]:
    """How many captions training rows hold, and their checksum; a few rows at a time, so that no memory is measured."""
    count = total = 0
    for path in files:
        for batch in read_batches(path, ["image", "captions"], rows=1_000):
            for row in batch.to_pylist():
                count += len(row["captions"])
                total += checksum((row["image"], caption) for caption in row["captions"])
    return count, total


def _shard(source: str, ids: pa.Array, images: pa.Array, captions: pa.Array) -> pa.Table:
    if source == RAW_SOURCE:
        paths = pc.binary_join_element_wise(pa.scalar("/data/pairs/images"), images, "/")
        return pa.table({"image_id": ids, "image": images, "path": paths, "raw_caption": captions})
    words = pa.array(word_counts(captions))
    return pa.table({"image_id": ids, "captioner": pa.array([source] * len(ids)), "caption": captions, "words": words})


def _shard_file(folder: Path, shard: int, source: str) -> Path:
    return folder / f"{source}-{shard:05d}.parquet"


def _json_file(folder: Path, size: int, source: str) -> Path:
    return folder / f"{source}-{size}.json"
