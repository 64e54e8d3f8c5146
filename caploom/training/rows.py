"""A training set's rows: which captions an image has, and which of them a step trains on."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import ValidationError

from caploom.errors import TrainingError
from caploom.records import TRAINING_ROWS
from caploom.training.drawing import draw_one, draw_several, random_sentence
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

    def has_captions(self, row: int) -> bool:
        """Whether there is anything to draw."""
        assert self._table is not None
        return len(self._table["captions"][row]) > 0

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
