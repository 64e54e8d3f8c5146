"""The captions of a training set by image, in its order, in memory that does not grow with their number.

One pass over the shards cuts all rows into buckets of images, by the leading bits of the order key; what is left to do
(join, sort, merge repeated rows) happens within a bucket. The buckets, one after another, are in the set's order.
"""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from caploom.names import RAW_SOURCE
from caploom.tables import read_batches, read_metadata
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
from caploom.training_set.spill import Spill
from caploom.training_set.ties import sorted_rows

BUCKET_BYTES = 16 * 2**20
MAX_BUCKETS = 512
_ROW_OVERHEAD = 64  # bytes of a caption's row beside its text

CAPTIONS_OF_IMAGES = pa.schema(
    [
        pa.field("image_id", pa.string(), nullable=False),
        pa.field("source", pa.string(), nullable=False),  # "raw" or the captioner
        pa.field("place", pa.int8(), nullable=False),  # 0 raw, 1 others
        pa.field("caption", pa.string(), nullable=False),
        pa.field("image", pa.string(), nullable=False),  # the user's own path
        pa.field("path", pa.string(), nullable=False),  # absolute path
        pa.field("words", pa.int32(), nullable=False),  # of the caption, between blanks
    ]
)
"""A bucket: sorted by (the image's place in the order, place, source, caption), no row twice."""

_IMAGES = pa.schema([("digest", DIGEST), ("image", pa.string()), ("path", pa.string())])
_CAPTIONS = pa.schema([("digest", DIGEST), ("source", pa.int16()), ("words", pa.int32()), ("caption", pa.string())])


@dataclass(frozen=True)
class Bucket:
    """Some images' captions (schema CAPTIONS_OF_IMAGES), and how many rows were left out and why."""

    captions: pa.Table
    repeated: int
    orphans: int

    @property
    def rows_in(self) -> int:
        """Rows that the bucket was given."""
        return len(self.captions) + self.repeated + self.orphans


class Buckets(AbstractContextManager["Buckets"]):
    """Raw pairs and captioners' captions by image.

    pairs: Parquet files of schema PAIRS. sheared: (captioner, file of schema SHEARED). The rows wait in a file in
    `folder`.
    """

    def __init__(
        self,
        pairs: Sequence[Path],
        sheared: Sequence[tuple[str, Path]],
        folder: Path,
        *,
        seed: int,
        bucket_bytes: int = BUCKET_BYTES,
    ) -> None:
        self._sources = [RAW_SOURCE, *sorted({captioner for captioner, _ in sheared})]
        self._seed = seed
        size = sum(_text_bytes(file, ["raw_caption", "image", "path"]) for file in pairs)
        size += sum(_text_bytes(file, ["caption"]) for _, file in sheared)
        self.count = min(max(-(-size // bucket_bytes), 1), MAX_BUCKETS)
        flush_bytes = max(size // self.count, bucket_bytes)
        self._images = Spill(folder, _IMAGES, self.count, flush_bytes // 2, self._bucket_of)
        self._captions = Spill(folder, _CAPTIONS, self.count, flush_bytes, self._bucket_of)
        self.rows_in = 0
        try:
            for file in pairs:
                self._add_pairs(file)
            for captioner, file in sheared:
                self._add_sheared(self._sources.index(captioner), file)
            self._images.flush()
            self._captions.flush()
        except BaseException:
            self.close()
            raise

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give the disk back."""
        self._images.close()
        self._captions.close()

    def __iter__(self) -> Iterator[Bucket]:
        return (self.read(number) for number in range(self.count))

    def scan(self) -> Iterator[pa.Table]:
        """The captions of every bucket, in order (schema CAPTIONS_OF_IMAGES); may be called again."""
        return (bucket.captions for bucket in self)

    def read(self, number: int) -> Bucket:
        """A bucket's captions."""
        images, digests, words = self._read_images(number)
        captions = self._captions.read(number)
        rows, image_of = _match(captions.column("digest"), words, self._seed)
        orphans = len(captions) - len(rows)
        if orphans:
            captions = captions.take(pa.array(rows))
        source = captions.column("source").to_numpy()
        # Images are numbered in their order, and sources are sorted by name with the raw one before.
        group = image_of * len(self._sources) + source
        order, repeated = sorted_rows(group, captions, ["caption"])
        order = order[~repeated]
        captions = captions.take(pa.array(order))
        source, image_of = source[order], pa.array(image_of[order])
        table = pa.table(
            [
                image_ids(digests).take(image_of),
                pa.array(self._sources, pa.string()).take(pa.array(source)),
                pa.array((source > 0).astype(np.int8)),
                captions.column("caption"),
                images.column("image").take(image_of),
                images.column("path").take(image_of),
                captions.column("words"),
            ],
            schema=CAPTIONS_OF_IMAGES,
        )
        return Bucket(table, repeated=int(repeated.sum()), orphans=orphans)

    def _read_images(self, number: int) -> tuple[pa.RecordBatch, np.ndarray, np.ndarray]:
        """A bucket's images in their order, each once with its first path, and their digests, as bytes and words."""
        images = self._images.read(number)
        words = digest_words(digests_of(images.column("digest")))
        keys = order_keys(words[:, 0], self._seed)
        order = np.argsort(keys)
        if np.any(keys[order][1:] == keys[order][:-1]):  # an image of several pairs, or two images that begin alike
            order = np.lexsort((words[:, 3], words[:, 2], words[:, 1], keys))
        changes = np.any(words[order][1:] != words[order][:-1], axis=1)
        number_of = np.empty(len(order), np.int64)
        number_of[order] = np.concatenate([[0], np.cumsum(changes)])[: len(order)]
        order, _ = sorted_rows(number_of, images, ["path", "image"])
        first = np.flatnonzero(np.diff(number_of[order], prepend=-1))
        images = images.take(pa.array(order[first]))
        return images, digests_of(images.column("digest")), words[order[first]]

    def _bucket_of(self, batch: pa.RecordBatch) -> np.ndarray:
        first = first_words(digests_of(batch.column("digest")))
        leading = order_keys(first, self._seed) >> np.uint64(32)
        return ((leading * np.uint64(self.count)) >> np.uint64(32)).astype(np.int64)

    def _add_pairs(self, file: Path) -> None:
        for batch in read_batches(file, ["image_id", "image", "path", "raw_caption"]):
            digest = digest_column(image_digests(batch.column("image_id")))
            self._images.add(pa.record_batch([digest, batch.column("image"), batch.column("path")], schema=_IMAGES))
            caption = batch.column("raw_caption")
            self._add_captions(digest, 0, pa.array(word_counts(caption)), caption)

    def _add_sheared(self, source: int, file: Path) -> None:
        for batch in read_batches(file, ["image_id", "words", "caption"]):
            digest = digest_column(image_digests(batch.column("image_id")))
            self._add_captions(digest, source, batch.column("words"), batch.column("caption"))

    def _add_captions(self, digest: pa.Array, source: int, words: pa.Array, caption: pa.Array) -> None:
        sources = pa.array(np.full(len(digest), source, np.int16))
        self._captions.add(pa.record_batch([digest, sources, words, caption], schema=_CAPTIONS))
        self.rows_in += len(digest)


def word_counts(texts: pa.Array) -> np.ndarray:
    """Words of each text, between ASCII blanks and control characters: (N,) int32."""
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
    # Equal or not is the same for the bytes as they lie as for the words that they spell.
    said, ours = digests.view(np.uint64), images.astype(">u8").view(np.uint64)
    # Images with the same key stand side by side: those that are not of the first of them may be of a later one.
    while True:
        matched = known[image_of] == keys
        for part in range(1, 4):
            matched &= ours[image_of, part] == said[:, part]
        following = np.minimum(image_of + 1, len(known) - 1)
        again = ~matched & (known[following] == keys) & (following > image_of)
        if not again.any():
            break
        image_of[again] += 1
    rows = np.flatnonzero(matched)
    return rows, image_of[rows]


def _text_bytes(file: Path, columns: list[str]) -> int:
    """About how much memory a file's rows take as captions."""
    metadata = read_metadata(file)
    size: int = metadata.num_rows * _ROW_OVERHEAD
    for group in range(metadata.num_row_groups):
        chunks = (metadata.row_group(group).column(number) for number in range(metadata.num_columns))
        size += sum(chunk.total_uncompressed_size for chunk in chunks if chunk.path_in_schema in columns)
    return size
