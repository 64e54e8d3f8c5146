"""What the trainer reads: a training set's Parquet shards as a deterministic stream of batches.

The order is a fresh permutation of the rows an epoch, from the seed alone, and so is the caption drawn for each row:
every machine and every number of workers sees the same batches. Captions stay in Arrow; only those drawn become Python.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from pydantic import ValidationError
from torch.utils.data import DataLoader, Dataset, Sampler

from caploom.errors import TrainingError
from caploom.images import ImageFault
from caploom.records import TRAINING_ROWS
from caploom.training.drawing import draw_one, draw_several, random_sentence
from caploom.training.images import ImageDecoder
from caploom.training_set.settings import Drawing

_COLUMNS = ["image_id", "path", "captions", "weights"]


class TrainingRows:
    """The rows of a training set, in the order of the given shards; `drawing` is what its mix says of drawing captions.

    Raises `TrainingError` when a file is no training set, when captions and weights do not run side by side, or when no
    row has a caption to draw.
    """

    def __init__(self, training_set: Sequence[Path]) -> None:
        self.drawing = _drawing(training_set)
        # Sources are read only where they matter: at 15 million images they are most of a gigabyte.
        sources = ["sources"] if self.drawing.texts > 1 or self.drawing.source_prefix else []
        tables = [_read_shard(file, [*_COLUMNS, *sources]) for file in training_set]
        self._table = pa.concat_tables(tables) if tables else None
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

    def draw_texts(self, row: int, *, seed: int, epoch: int) -> list[str]:
        """What a step trains on of a row: one text, or several where the mix has several positives.

        The same for the same row, seed and epoch.
        """
        assert self._table is not None
        captions = self._table["captions"][row]
        key = {"seed": seed, "epoch": epoch, "row": row}
        sources = self._table["sources"][row].as_py() if "sources" in self._table.column_names else []
        if self.drawing.texts > 1:
            drawn = draw_several(sources, self.drawing.texts, **key)
        else:
            drawn = [0 if len(captions) == 1 else draw_one(self._table["weights"][row].as_py(), **key)]
        texts = [str(captions[index].as_py()) for index in drawn]
        if self.drawing.sub_caption:
            texts = [random_sentence(text, caption=index, **key) for index, text in zip(drawn, texts, strict=True)]
        if self.drawing.source_prefix:
            texts = [f"{sources[index]}: {text}" for index, text in zip(drawn, texts, strict=True)]
        return texts


@dataclass(frozen=True, slots=True)
class Chunk:
    """Rows to be decoded together, in the order of their epoch; `remaining` rows of the epoch come from here on."""

    epoch: int
    rows: np.ndarray
    remaining: int


@dataclass(frozen=True, slots=True)
class DecodedChunk:
    """What came of a chunk.

    Attributes:
        epoch: its epoch.
        images: uint8 of shape (N, 3, height, width).
        tokens: of shape (N, texts of an image at most, context length); unused places hold zeros.
        texts: int64 of shape (N,), how many texts each image has.
        failures: what failed, by row.
    """

    epoch: int
    images: torch.Tensor
    tokens: torch.Tensor
    texts: torch.Tensor
    failures: tuple[tuple[int, str], ...]


@dataclass(frozen=True, slots=True)
class Batch:
    """One step's pairs: images (batch, 3, height, width) uint8 and tokens (texts, context length) int64.

    `owners` (texts,) int64 says which image each text is of; it is None where text i is image i's.
    """

    images: torch.Tensor
    tokens: torch.Tensor
    owners: torch.Tensor | None = None


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
        images, failures = [], []
        drawn: list[list[str]] = []
        for row in chunk.rows.tolist():
            try:
                images.append(self._cache.get(self._rows.path(row), self._rows.image_id(row), self._decoder.decode))
            except ImageFault as error:
                failures.append((row, error.reason))
                continue
            drawn.append(self._rows.draw_texts(row, seed=self._seed, epoch=chunk.epoch))
        if not images:
            nothing = torch.empty(0, dtype=torch.uint8)
            return DecodedChunk(chunk.epoch, nothing, nothing, nothing, tuple(failures))
        texts = torch.tensor([len(each) for each in drawn])
        tokenized = self._tokenize([text for each in drawn for text in each])
        tokens = tokenized.new_zeros(len(drawn), self._rows.drawing.texts, tokenized.shape[1])
        tokens[_places(texts, self._rows.drawing.texts)] = tokenized
        return DecodedChunk(chunk.epoch, torch.from_numpy(np.stack(images)), tokens, texts, tuple(failures))


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
        images, tokens, texts = buffers = _Buffer(), _Buffer(), _Buffer()
        for chunk in self._decoded_chunks():
            if chunk.epoch != epoch:
                if batches == 0:
                    raise TrainingError(self._too_few(epoch))
                epoch, batches = chunk.epoch, 0
                for buffer in buffers:
                    buffer.clear()
            self._failed_rows.update(chunk.failures)
            images.add(chunk.images)
            tokens.add(chunk.tokens)
            texts.add(chunk.texts)
            while len(images) >= self._batch_size:
                yield _batch(*(buffer.take(self._batch_size) for buffer in buffers))
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


def _places(texts: torch.Tensor, most: int) -> torch.Tensor:
    """bool of shape (N, most): which places the images' texts take, of how many each has (N,)."""
    return torch.arange(most) < texts[:, None]


def _batch(images: torch.Tensor, tokens: torch.Tensor, texts: torch.Tensor) -> Batch:
    if tokens.shape[1] == 1:
        return Batch(images, tokens[:, 0])
    return Batch(images, tokens[_places(texts, tokens.shape[1])], torch.repeat_interleave(texts))


def _drawing(training_set: Sequence[Path]) -> Drawing:
    """What the shards' metadata says of drawing; they must agree."""
    drawings = set()
    for file in training_set:
        try:
            drawings.add(Drawing.of_metadata(pq.read_schema(file).metadata))
        except (OSError, pa.ArrowException, ValidationError) as error:
            raise _no_shard(file, error) from None
    if len(drawings) > 1:
        raise TrainingError(f"{training_set[0].parent}: its shards are of several mixes; make the training set again.")
    return drawings.pop() if drawings else Drawing()


def _no_shard(file: Path, error: Exception) -> TrainingError:
    reason = str(error).splitlines()[0]
    return TrainingError(f"{file}: this is no shard of a training set ({reason}); make the training set again.")


def _read_shard(file: Path, columns: list[str]) -> pa.Table:
    try:
        table = pq.read_table(file, columns=columns)
        table = table.cast(pa.schema([TRAINING_ROWS.field(name) for name in columns]))
    except (OSError, pa.ArrowException) as error:
        raise _no_shard(file, error) from None
    lengths = pc.list_value_length(table["captions"]).to_numpy()
    if not np.array_equal(lengths, pc.list_value_length(table["weights"]).to_numpy()):
        raise TrainingError(f"{file}: a row has not as many weights as captions; make the training set again.")
    weights = pc.list_flatten(table["weights"]).to_numpy()
    totals = np.bincount(np.repeat(np.arange(len(table)), lengths), weights=weights, minlength=len(table))
    if (weights < 0).any() or not (totals[lengths > 0] > 0).all():
        raise TrainingError(f"{file}: a row's weights are negative or add up to nothing; make the training set again.")
    return table
