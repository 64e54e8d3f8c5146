"""What the trainer reads: a training set's Parquet shards as a deterministic stream of batches.

The order is a fresh permutation of the rows an epoch, from the seed alone, and so is the caption drawn for each row:
every machine and every number of workers sees the same batches. Captions stay in Arrow; only those drawn become Python.
"""

import hashlib
import struct
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from caploom.errors import TrainingError
from caploom.images import ImageFault
from caploom.records import TRAINING_ROWS
from caploom.training.images import ImageDecoder

_COLUMNS = ["image_id", "path", "captions", "weights"]


class TrainingRows:
    """The rows of a training set, in the order of the given shards.

    Raises `TrainingError` when a file is no training set, when captions and weights do not run side by side, or when no
    row has a caption to draw.
    """

    def __init__(self, training_set: Sequence[Path]) -> None:
        self._table = pa.concat_tables([_read_shard(file) for file in training_set]) if training_set else None
        if self._table is None or len(self._table) == 0:
            raise TrainingError("The training set has no rows; materialize raw_pairs and see its failures table.")
        self.usable = np.flatnonzero(pc.list_value_length(self._table["captions"]).to_numpy())
        if len(self.usable) == 0:
            raise TrainingError(
                f"None of the training set's {len(self):,} rows has a caption; see the merge's failures."
            )

    def __len__(self) -> int:
        return 0 if self._table is None else len(self._table)

    def path(self, row: int) -> str:
        """The image file of a row."""
        assert self._table is not None
        return str(self._table["path"][row].as_py())

    def image_id(self, row: int) -> str:
        """The identity of a row's image."""
        assert self._table is not None
        return str(self._table["image_id"][row].as_py())

    def draw_caption(self, row: int, *, seed: int, epoch: int) -> str:
        """One of the row's captions, drawn with its weights; the same for the same row, seed and epoch."""
        assert self._table is not None
        captions = self._table["captions"][row]
        if len(captions) == 1:
            return str(captions[0].as_py())
        edges = np.cumsum(np.asarray(self._table["weights"][row].as_py(), dtype=np.float64))
        point = _uniform(seed, epoch, row) * edges[-1]
        drawn = int(np.searchsorted(edges, point, side="right"))
        return str(captions[min(drawn, len(captions) - 1)].as_py())


@dataclass(frozen=True, slots=True)
class Chunk:
    """Rows to be decoded together, in the order of their epoch; `remaining` rows of the epoch come from here on."""

    epoch: int
    rows: np.ndarray
    remaining: int


@dataclass(frozen=True, slots=True)
class DecodedChunk:
    """What came of a chunk: images (N, 3, height, width) uint8, tokens (N, context length), and what failed, by row."""

    epoch: int
    images: torch.Tensor
    tokens: torch.Tensor
    failures: tuple[tuple[int, str], ...]


@dataclass(frozen=True, slots=True)
class Batch:
    """One step's pairs: images (batch, 3, height, width) uint8 and tokens (batch, context length) int64."""

    images: torch.Tensor
    tokens: torch.Tensor


class ImageCache:
    """Decoded images by identity, up to a number of bytes.

    It admits until it is full and then evicts nothing: epochs are permutations, under which the oldest entry is no less
    likely to be wanted than the newest, and evicting would only cost time.
    """

    def __init__(self, max_bytes: int) -> None:
        self._free = max_bytes
        self._images: dict[str, np.ndarray] = {}

    def get(self, path: str, image_id: str, decode: Callable[[str, str], np.ndarray]) -> np.ndarray:
        """The image of that identity, decoded by `decode` from the file at `path` unless it is held."""
        held = self._images.get(image_id)
        if held is not None:
            return held
        image = decode(path, image_id)
        if image.nbytes <= self._free:
            self._free -= image.nbytes
            self._images[image_id] = image
        return image


class ChunkDataset(Dataset[DecodedChunk]):
    """Decodes and tokenizes chunks of rows, in the trainer or in its worker processes."""

    def __init__(
        self,
        rows: TrainingRows,
        decoder: ImageDecoder,
        tokenize: Callable[[list[str]], torch.Tensor],
        *,
        seed: int,
        cache_bytes: int,
    ) -> None:
        self._rows, self._decoder, self._tokenize, self._seed = rows, decoder, tokenize, seed
        self._cache = ImageCache(cache_bytes)

    def __getitem__(self, chunk: Chunk) -> DecodedChunk:
        images, captions, failures = [], [], []
        for row in chunk.rows.tolist():
            try:
                images.append(self._cache.get(self._rows.path(row), self._rows.image_id(row), self._decoder.decode))
            except ImageFault as error:
                failures.append((row, error.reason))
                continue
            captions.append(self._rows.draw_caption(row, seed=self._seed, epoch=chunk.epoch))
        if not images:
            nothing = torch.empty(0, dtype=torch.uint8)
            return DecodedChunk(chunk.epoch, nothing, nothing, tuple(failures))
        return DecodedChunk(chunk.epoch, torch.from_numpy(np.stack(images)), self._tokenize(captions), tuple(failures))


class BatchStream:
    """An endless stream of whole batches over shuffled epochs; `failures` counts what could not be read, by reason.

    An unreadable image's place is taken by the next row. Rows left over at the end of an epoch are not carried into the
    next one, so a row is never twice in a batch (an image can be, where the mix `concatenate` made several rows of it).
    """

    def __init__(
        self,
        rows: TrainingRows,
        decoder: ImageDecoder,
        tokenize: Callable[[list[str]], torch.Tensor],
        *,
        batch_size: int,
        seed: int,
        workers: int,
        cache_bytes: int,
    ) -> None:
        if batch_size > len(rows.usable):
            raise TrainingError(
                f"A batch of {batch_size:,} needs as many rows, and the training set has {len(rows.usable):,} with a "
                "caption; set the trainer's batch_size to at most that or add pairs."
            )
        self._rows, self._batch_size, self._seed, self._workers = rows, batch_size, seed, workers
        self._failed_rows: dict[int, str] = {}
        self._waiting = 0
        # Each worker process holds a cache of its own, so the bound is shared out.
        self._dataset = ChunkDataset(rows, decoder, tokenize, seed=seed, cache_bytes=cache_bytes // max(1, workers))

    @property
    def failures(self) -> dict[str, int]:
        """How many rows could not be used so far, by reason; a row counts once however often it is met."""
        without_caption = len(self._rows) - len(self._rows.usable)
        counts = Counter(self._failed_rows.values())
        if without_caption:
            counts["no_caption"] = without_caption
        return dict(counts)

    def __iter__(self) -> Iterator[Batch]:
        """Batches for ever. Raises `TrainingError` once an epoch ends without a whole batch."""
        epoch, batches = 0, 0
        images, tokens = _Buffer(), _Buffer()
        for chunk in self._decoded_chunks():
            if chunk.epoch != epoch:
                if batches == 0:
                    raise TrainingError(self._too_few(epoch))
                epoch, batches = chunk.epoch, 0
                images.clear()
                tokens.clear()
            self._failed_rows.update(chunk.failures)
            images.add(chunk.images)
            tokens.add(chunk.tokens)
            while len(images) >= self._batch_size:
                yield Batch(images.take(self._batch_size), tokens.take(self._batch_size))
                batches += 1
            self._waiting = len(images)

    def _decoded_chunks(self) -> Iterator[DecodedChunk]:
        if self._workers == 0:
            # The rest of an epoch that cannot fill another batch is not worth decoding.
            return (
                self._dataset[chunk] for chunk in self._chunks() if self._waiting + chunk.remaining >= self._batch_size
            )
        loader = DataLoader(
            self._dataset, batch_size=None, sampler=_Stream(self._chunks), num_workers=self._workers, prefetch_factor=2
        )
        return iter(loader)

    def _chunks(self) -> Iterator[Chunk]:
        epoch = 0
        while True:
            order = epoch_order(self._rows.usable, seed=self._seed, epoch=epoch)
            for start in range(0, len(order), self._batch_size):
                yield Chunk(epoch, order[start : start + self._batch_size], len(order) - start)
            epoch += 1

    def _too_few(self, epoch: int) -> str:
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in sorted(self.failures.items()))
        return (
            f"A batch of {self._batch_size:,} cannot be filled: of the training set's {len(self._rows):,} rows too few "
            f"could be read in epoch {epoch + 1} ({reasons}); put the images back or lower the trainer's batch_size."
        )


def epoch_order(rows: np.ndarray, *, seed: int, epoch: int) -> np.ndarray:
    """The rows in the order in which an epoch visits them; a function of seed and epoch alone."""
    generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed % 2**64, epoch])))
    return generator.permutation(rows)


class _Stream(Sampler[Chunk]):
    """A sampler for `DataLoader` that starts a new pass of an endless generator."""

    def __init__(self, start: Callable[[], Iterator[Chunk]]) -> None:
        self._start = start

    def __iter__(self) -> Iterator[Chunk]:
        return self._start()


class _Buffer:
    """Rows of tensors in order of arrival, taken from the front."""

    def __init__(self) -> None:
        self._parts: list[torch.Tensor] = []
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def add(self, part: torch.Tensor) -> None:
        if len(part):
            self._parts.append(part)
            self._length += len(part)

    def take(self, count: int) -> torch.Tensor:
        whole = torch.cat(self._parts) if len(self._parts) > 1 else self._parts[0]
        self.clear()
        self.add(whole[count:])
        return whole[:count]

    def clear(self) -> None:
        self._parts, self._length = [], 0


def _read_shard(file: Path) -> pa.Table:
    try:
        table = pq.read_table(file, columns=_COLUMNS)
        table = table.cast(pa.schema([TRAINING_ROWS.field(name) for name in _COLUMNS]))
    except (OSError, pa.ArrowException) as error:
        reason = str(error).splitlines()[0]
        raise TrainingError(
            f"{file}: this is no shard of a training set ({reason}); make the training set again."
        ) from None
    lengths = pc.list_value_length(table["captions"]).to_numpy()
    if not np.array_equal(lengths, pc.list_value_length(table["weights"]).to_numpy()):
        raise TrainingError(f"{file}: a row has not as many weights as captions; make the training set again.")
    weights = pc.list_flatten(table["weights"]).to_numpy()
    totals = np.bincount(np.repeat(np.arange(len(table)), lengths), weights=weights, minlength=len(table))
    if (weights < 0).any() or not (totals[lengths > 0] > 0).all():
        raise TrainingError(f"{file}: a row's weights are negative or add up to nothing; make the training set again.")
    return table


def _uniform(seed: int, epoch: int, row: int) -> float:
    """A number in [0, 1) that depends on the three alone, the same on every machine and library version."""
    digest = hashlib.blake2b(struct.pack("<qqq", seed, epoch, row), digest_size=8).digest()
    return (int.from_bytes(digest, "little") >> 11) / 2**53
