"""The captions of a training set by image, in its order, in memory that does not grow with their number.

One pass over the shards divides all rows into buckets of images, by the leading bits of the order key (`Cutter`); the
rest (join, sort, merge repeated rows) happens within a bucket (`joined`). The buckets, one after another, are in the
set's order. Their content depends neither on their number nor on the order in which rows came.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from caploom.common.names import RAW_SOURCE
from caploom.errors import TrainingError
from caploom.storage.records import schema_of
from caploom.storage.tables import read_batches, read_metadata
from caploom.training_set.order import (
    DIGEST,
    digest_column,
    digest_words,
    digests_of,
    first_words,
    image_digests,
    image_ids,
    order_keys,
)
from caploom.training_set.sorting import sorted_rows
from caploom.training_set.spill import Spill, full_spill_explained, nameless_file

BUCKET_BYTES = 16 * 2**20
MEMORY_BYTES = 10**9
_FEW, _MOST = 512, 8192
"""Numbers of buckets: beyond the first they grow instead, as far as memory allows; beyond the second, their pieces
would be too small."""
COPIES = 16  # copies of a bucket's text, at the peak of joining, filtering and writing it
_ROW_OVERHEAD = 64  # bytes of a caption's row in addition to its text

CAPTIONS_OF_IMAGES = schema_of(
    image_id=pa.string(),
    source=pa.string(),  # "raw" or the captioner
    place=pa.int8(),  # 0 raw, 1 others
    caption=pa.string(),
    image=pa.string(),  # the user's own path
    path=pa.string(),  # absolute path
    words=pa.int32(),  # of the caption, separated by whitespace
)
"""A bucket: sorted by (the image's position in the order, place, source, caption), without duplicate rows."""

IMAGES = pa.schema([("digest", DIGEST), ("image", pa.string()), ("path", pa.string())])
CAPTIONS = pa.schema([("digest", DIGEST), ("source", pa.int16()), ("words", pa.int32()), ("caption", pa.string())])


@dataclass(frozen=True)
class Bucket:
    """Some images' captions (schema CAPTIONS_OF_IMAGES), and the numbers of rows left out, by reason."""

    captions: pa.Table
    repeated: int
    orphans: int


def count_buckets(size: int, memory: int, bucket_bytes: int = BUCKET_BYTES) -> int:
    """The number of buckets for rows of `size` bytes, so that working on one takes no more than `memory` bytes.

    Raises `TrainingError` when there would be too many.
    """
    largest = max(memory // COPIES, 1)
    count = max(-(-size // min(bucket_bytes, largest)), 1)
    if count > _FEW:
        count = max(-(-size // largest), _FEW)
    if count > _MOST:
        raise TrainingError(
            f"merge.memory_gb: {memory / 1e9:g} is too little to merge {size / 1e9:,.1f} GB of captions; write "
            f"{size / _MOST * COPIES / 1e9 + 0.05:.1f} or more."
        )
    return count


class Cutter:
    """Divides rows into `count` buckets, which wait in two files. `sources` is the result of `source_names`."""

    def __init__(
        self, sources: Sequence[str], images: IO[bytes], captions: IO[bytes], *, seed: int, count: int, flush_bytes: int
    ) -> None:
        self._sources, self._seed, self.count = list(sources), seed, count
        self.images = Spill(images, IMAGES, count, flush_bytes // 2, self._bucket_of)
        self.captions = Spill(captions, CAPTIONS, count, flush_bytes, self._bucket_of)
        self.rows_in = 0

    def add(self, captioner: str | None, file: Path) -> None:
        """Add a table of raw pairs, or of a captioner."""
        if captioner is None:
            self._add_pairs(file)
        else:
            self._add_sheared(self._sources.index(captioner), file)

    def flush(self) -> None:
        """Write the buffered rows; call it before anything is read."""
        self.images.flush()
        self.captions.flush()

    def close(self) -> None:
        """Release the disk space."""
        self.images.close()
        self.captions.close()

    def _bucket_of(self, batch: pa.RecordBatch) -> np.ndarray:
        first = first_words(digests_of(batch.column("digest")))
        leading = order_keys(first, self._seed) >> np.uint64(32)
        return ((leading * np.uint64(self.count)) >> np.uint64(32)).astype(np.int64)

    def _add_pairs(self, file: Path) -> None:
        for batch in read_batches(file, ["image_id", "image", "path", "raw_caption"]):
            digest = digest_column(image_digests(batch.column("image_id")))
            self.images.add(pa.record_batch([digest, batch.column("image"), batch.column("path")], schema=IMAGES))
            caption = batch.column("raw_caption")
            there = pc.not_equal(caption, "")
            if not pc.all(there).as_py():  # images that came without a caption
                digest, caption = digest.filter(there), caption.filter(there)
            self._add_captions(digest, 0, pa.array(word_counts(caption)), caption)

    def _add_sheared(self, source: int, file: Path) -> None:
        for batch in read_batches(file, ["image_id", "words", "caption"]):
            digest = digest_column(image_digests(batch.column("image_id")))
            self._add_captions(digest, source, batch.column("words"), batch.column("caption"))

    def _add_captions(self, digest: pa.Array, source: int, words: pa.Array, caption: pa.Array) -> None:
        sources = pa.array(np.full(len(digest), source, np.int16))
        self.captions.add(pa.record_batch([digest, sources, words, caption], schema=CAPTIONS))
        self.rows_in += len(digest)


class Buckets(AbstractContextManager["Buckets"]):
    """Raw pairs and captioners' captions by image.

    pairs: Parquet files of schema PAIRS. sheared: (captioner, file of schema SHEARED). The rows wait in nameless files
    in `folder`; working on a bucket takes no more than `memory` bytes.
    """

    def __init__(
        self,
        pairs: Sequence[Path],
        sheared: Sequence[tuple[str, Path]],
        folder: Path,
        *,
        seed: int,
        bucket_bytes: int = BUCKET_BYTES,
        memory: int = MEMORY_BYTES,
    ) -> None:
        self._sources = source_names(captioner for captioner, _ in sheared)
        self._seed = seed
        tables: list[tuple[str | None, Path]] = [*((None, file) for file in pairs), *sheared]
        size = sum(text_bytes(captioner, file) for captioner, file in tables)
        self.count = count_buckets(size, memory, bucket_bytes)
        self._cutter = Cutter(
            self._sources,
            nameless_file(folder),
            nameless_file(folder),
            seed=seed,
            count=self.count,
            flush_bytes=max(size // self.count, min(bucket_bytes, memory // COPIES)),
        )
        try:
            with full_spill_explained(folder):
                for captioner, file in tables:
                    self._cutter.add(captioner, file)
                self._cutter.flush()
        except BaseException:
            self.close()
            raise
        self.rows_in = self._cutter.rows_in

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Release the disk space."""
        self._cutter.close()

    def __iter__(self) -> Iterator[Bucket]:
        return (self.read(number) for number in range(self.count))

    def scan(self) -> Iterator[pa.Table]:
        """The captions of every bucket, in order (schema CAPTIONS_OF_IMAGES); may be called again."""
        return (bucket.captions for bucket in self)

    def read(self, number: int) -> Bucket:
        """A bucket's captions."""
        return joined(self._cutter.images.read(number), self._cutter.captions.read(number), self._sources, self._seed)


def source_names(captioners: Iterable[str]) -> list[str]:
    """The sources as buckets number them."""
    return [RAW_SOURCE, *sorted(set(captioners))]


def joined(images: pa.RecordBatch, captions: pa.RecordBatch, sources: Sequence[str], seed: int) -> Bucket:
    """The bucket of these rows (schemas IMAGES and CAPTIONS, in any order)."""
    images, digests, words = _ordered_images(images, seed)
    rows, image_of = _match(captions.column("digest"), words, seed)
    orphans = len(captions) - len(rows)
    if orphans:
        captions = captions.take(pa.array(rows))
    source = captions.column("source").to_numpy()
    # Images are numbered in their order, and sources are sorted by name, with the raw one first.
    group = image_of * len(sources) + source
    order, repeated = sorted_rows(group, captions, ["caption"])
    order = order[~repeated]
    captions = captions.take(pa.array(order))
    source, image_of = source[order], pa.array(image_of[order])
    table = pa.table(
        [
            image_ids(digests).take(image_of),
            pa.array(list(sources), pa.string()).take(pa.array(source)),
            pa.array((source > 0).astype(np.int8)),
            captions.column("caption"),
            images.column("image").take(image_of),
            images.column("path").take(image_of),
            captions.column("words"),
        ],
        schema=CAPTIONS_OF_IMAGES,
    )
    return Bucket(table, repeated=int(repeated.sum()), orphans=orphans)


def _ordered_images(images: pa.RecordBatch, seed: int) -> tuple[pa.RecordBatch, np.ndarray, np.ndarray]:
    """A bucket's images in their order, each once with its first path, and their digests, as bytes and words."""
    words = digest_words(digests_of(images.column("digest")))
    keys = order_keys(words[:, 0], seed)
    order = np.argsort(keys)
    if np.any(keys[order][1:] == keys[order][:-1]):  # an image with several pairs, or two with equal leading digits
        order = np.lexsort((words[:, 3], words[:, 2], words[:, 1], keys))
    changes = np.any(words[order][1:] != words[order][:-1], axis=1)
    number_of = np.empty(len(order), np.int64)
    number_of[order] = np.concatenate([[0], np.cumsum(changes)])[: len(order)]
    order, _ = sorted_rows(number_of, images, ["path", "image"])
    first = np.flatnonzero(np.diff(number_of[order], prepend=-1))
    images = images.take(pa.array(order[first]))
    return images, digests_of(images.column("digest")), words[order[first]]


def word_counts(texts: pa.Array) -> np.ndarray:
    """Number of words of each text, separated by ASCII whitespace and control characters: (N,) int32."""
    starts = np.frombuffer(texts.buffers()[1], np.int32)[texts.offset : texts.offset + len(texts) + 1]
    data = np.frombuffer(texts.buffers()[2] or b"", np.uint8)[starts[0] : starts[-1]]
    starts = starts - starts[0]
    is_word = data > 0x20
    begins = is_word.copy()
    begins[1:] &= ~is_word[:-1]
    inside = starts[starts < len(data)]
    begins[inside] = is_word[inside]
    counts = np.zeros(len(data) + 1, np.int32)
    np.cumsum(begins, out=counts[1:])
    return np.diff(counts[starts])


def _match(column: pa.Array, images: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The rows whose image is among `images` (N, 4; in their order), and the number of each one's image."""
    digests = digests_of(column)
    keys, known = order_keys(first_words(digests), seed), order_keys(images[:, 0], seed)
    if len(known) == 0:
        return np.empty(0, np.int64), np.empty(0, np.int64)
    image_of = np.minimum(np.searchsorted(known, keys), len(known) - 1)
    # Equality is the same for the bytes in memory order as for the integers that they represent.
    theirs, ours = digests.view(np.uint64), images.astype(">u8").view(np.uint64)
    # Images with the same key are adjacent: rows that do not belong to the first may belong to a later one.
    while True:
        matched = known[image_of] == keys
        for part in range(1, 4):
            matched &= ours[image_of, part] == theirs[:, part]
        following = np.minimum(image_of + 1, len(known) - 1)
        again = ~matched & (known[following] == keys) & (following > image_of)
        if not again.any():
            break
        image_of[again] += 1
    rows = np.flatnonzero(matched)
    return rows, image_of[rows]


def text_bytes(captioner: str | None, file: Path) -> int:
    """The approximate memory that the rows of a table of raw pairs, or of a captioner, take as captions."""
    columns = ["raw_caption", "image", "path"] if captioner is None else ["caption"]
    metadata = read_metadata(file)
    size: int = metadata.num_rows * _ROW_OVERHEAD
    for group in range(metadata.num_row_groups):
        chunks = (metadata.row_group(group).column(number) for number in range(metadata.num_columns))
        size += sum(chunk.total_uncompressed_size for chunk in chunks if chunk.path_in_schema in columns)
    return size
