"""A training set's rows, read in windows: its images and captions, and which captions a step trains on.

The merge writes files of some ten thousand rows in the order of a seeded hash. Each epoch reads the files in a new
order, several at a time (a window), and shuffles the rows of each window: a shuffle across shards, with only a window
in memory and never the whole set.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import ValidationError

from caploom.common.text import first_line
from caploom.errors import TrainingError
from caploom.images.moves import STAYED, Moves
from caploom.storage.records import TRAINING_ROWS
from caploom.training.drawing import draw_one, draw_several, random_sentence
from caploom.training_set.settings import Drawing

WINDOW_ROWS = 200_000
"""A window ends with the file that reaches this many rows, or `WINDOW_BYTES` of columns before compression."""

WINDOW_BYTES = 128 * 2**20

_COLUMNS = ["image_id", "path", "captions", "weights"]


class TrainingRows:
    """The rows of a training set's files, numbered in the order given; `drawing` is the mix's.

    `moves` says where their images are now. Only footers are read here. Raises `TrainingError` when a file is
    not a training set or there are no rows.
    """

    def __init__(
        self,
        training_set: Sequence[Path],
        *,
        window_rows: int = WINDOW_ROWS,
        window_bytes: int = WINDOW_BYTES,
        moves: Moves = STAYED,
    ) -> None:
        self._moves = moves
        self.files = [Path(file) for file in training_set]
        footers = [_footer(file) for file in self.files]
        self.drawing = _drawing(self.files, footers)
        self._counts = np.array([footer.num_rows for footer in footers], np.int64)
        self._bytes = [
            sum(footer.row_group(i).total_byte_size for i in range(footer.num_row_groups)) for footer in footers
        ]
        self._starts = np.concatenate([[0], np.cumsum(self._counts)])
        self._window_rows, self._window_bytes = window_rows, window_bytes
        if len(self) == 0:
            raise TrainingError("The training set has no rows; materialize raw_pairs and see its failures table.")

    def __len__(self) -> int:
        return int(self._starts[-1])

    def epoch(self, *, seed: int, epoch: int) -> "Epoch":
        """The epoch's windows, in their order; depends only on the files, the seed and the epoch."""
        random = _random(seed, epoch)
        # A window of all files is shuffled anyway: in the files' own order, the division into files has no effect.
        fits = len(self) <= self._window_rows and sum(self._bytes) <= self._window_bytes
        order = np.arange(len(self.files)) if fits else random.permutation(len(self.files))
        windows: list[list[int]] = []
        rows = size = 0
        for file in order.tolist():
            if not windows or rows >= self._window_rows or size >= self._window_bytes:
                windows.append([])
                rows = size = 0
            windows[-1].append(file)
            rows, size = rows + int(self._counts[file]), size + self._bytes[file]
        sizes = [int(self._counts[window].sum()) for window in windows]
        return Epoch(self, seed, epoch, windows, np.concatenate([[0], np.cumsum(sizes)]))

    def read(self, files: Sequence[int]) -> "Window":
        """The rows of some files, in memory."""
        tables = [self._moves.of_table(_read_file(self.files[file], self.drawing)) for file in files]
        numbers = [np.arange(self._starts[file], self._starts[file + 1]) for file in files]
        return Window(pa.concat_tables(tables).combine_chunks(), np.concatenate(numbers), self.drawing)


@dataclass(frozen=True)
class Epoch:
    """The order in which an epoch visits the rows: window after window, the rows of each shuffled.

    `starts` (windows + 1,) are the positions of the epoch at which the windows start.
    """

    rows: TrainingRows
    seed: int
    epoch: int
    windows: list[list[int]]
    starts: np.ndarray

    def positions(self, start: int, stop: int) -> list[tuple[int, np.ndarray]]:
        """The positions start to stop of the epoch, by window: (its number, indices of its rows)."""
        found = []
        for window in range(int(np.searchsorted(self.starts, start, side="right")) - 1, len(self.windows)):
            first, end = int(self.starts[window]), int(self.starts[window + 1])
            if first >= stop:
                break
            order = _shuffled(self.seed, self.epoch, window, end - first)
            found.append((window, order[max(start, first) - first : min(stop, end) - first]))
        return found


@dataclass(frozen=True)
class Window:
    """Rows in memory, as Arrow: only the captions that are drawn become Python objects.

    Attributes:
        table: the rows.
        numbers: each row's number in the training set: draws depend on it and not on the window.
        drawing: the mix's.
    """

    table: pa.Table
    numbers: np.ndarray
    drawing: Drawing

    def image(self, position: int) -> tuple[str, str]:
        """Path and identity of a row's image."""
        return str(self.table["path"][position].as_py()), str(self.table["image_id"][position].as_py())

    def has_captions(self, position: int) -> bool:
        """Whether there is anything to draw."""
        return len(self.table["captions"][position]) > 0

    def draw_texts(self, position: int, *, seed: int, epoch: int) -> list[str]:
        """The texts of a row for a step: one, or several where the mix has several positives.

        The same for the same row, seed and epoch.
        """
        captions = self.table["captions"][position]
        key = {"seed": seed, "epoch": epoch, "row": int(self.numbers[position])}
        sources = self.table["sources"][position].as_py() if "sources" in self.table.column_names else []
        if self.drawing.texts > 1:
            drawn = draw_several(sources, self.drawing.texts, **key)
        else:
            drawn = [0 if len(captions) == 1 else draw_one(self.table["weights"][position].as_py(), **key)]
        texts = [str(captions[index].as_py()) for index in drawn]
        if self.drawing.sub_caption:
            texts = [random_sentence(text, caption=index, **key) for index, text in zip(drawn, texts, strict=True)]
        if self.drawing.source_prefix:
            texts = [f"{sources[index]}: {text}" for index, text in zip(drawn, texts, strict=True)]
        return texts


def _random(seed: int, epoch: int, *position: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed % 2**64, epoch, *position])))


@lru_cache(maxsize=4)
def _shuffled(seed: int, epoch: int, window: int, length: int) -> np.ndarray:
    return _random(seed, epoch, window).permutation(length)


def _footer(file: Path) -> pq.FileMetaData:
    try:
        return pq.read_metadata(file)
    except (OSError, pa.ArrowException) as error:
        raise _no_shard(file, error) from None


def _drawing(files: Sequence[Path], footers: Sequence[pq.FileMetaData]) -> Drawing:
    """The drawing in the files' metadata; they must agree."""
    drawings = set()
    for file, footer in zip(files, footers, strict=True):
        try:
            drawings.add(Drawing.of_metadata(footer.schema.to_arrow_schema().metadata))
        except ValidationError as error:
            raise _no_shard(file, error) from None
    if len(drawings) > 1:
        raise TrainingError(f"{files[0].parent}: its shards are of several mixes; rebuild the training set.")
    return drawings.pop() if drawings else Drawing()


def _no_shard(file: Path, error: Exception) -> TrainingError:
    reason = first_line(error)
    return TrainingError(f"{file}: this is not a shard of a training set ({reason}); rebuild the training set.")


def _read_file(file: Path, drawing: Drawing) -> pa.Table:
    # Sources are read only where they matter.
    columns = [*_COLUMNS, *(["sources"] if drawing.texts > 1 or drawing.source_prefix else [])]
    try:
        table = pq.read_table(file, columns=columns)
        table = table.cast(pa.schema([TRAINING_ROWS.field(name) for name in columns]))
    except (OSError, pa.ArrowException) as error:
        raise _no_shard(file, error) from None
    lengths = pc.list_value_length(table["captions"]).to_numpy()
    if not np.array_equal(lengths, pc.list_value_length(table["weights"]).to_numpy()):
        raise TrainingError(f"{file}: a row has different numbers of weights and captions; rebuild the training set.")
    weights = pc.list_flatten(table["weights"]).to_numpy()
    totals = np.bincount(np.repeat(np.arange(len(table)), lengths), weights=weights, minlength=len(table))
    if (weights < 0).any() or not (totals[lengths > 0] > 0).all():
        raise TrainingError(f"{file}: a row's weights are negative or add up to zero; rebuild the training set.")
    return table
