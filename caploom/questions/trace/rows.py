"""Finds an image's rows in a training set of millions without reading it: its order determines where they must be."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from caploom.storage.tables import read_table
from caploom.training_set.order import image_digests, image_ids, order_keys

_Position = tuple[int, str]  # a row's position in the order: (key, identity)


def rows_of_image(files: Sequence[Path], image_id: str, seed: int) -> list[dict[str, Any]]:
    """The rows of an image, each with its `file` and its `row` (from 0); empty when there are none.

    `files` are a training set's in their order, `seed` is the order's. The keys are spread evenly, so the file is
    guessed from the image's key and corrected by the keys of the rows that are found there. Raises `StoreError`
    when a file is gone or damaged.
    """
    wanted = _positions(pa.array([image_id]), seed)[0]
    low, high = 0, len(files) - 1
    low_key, high_key = 0, 2**64 - 1
    while low <= high:
        share = (wanted[0] - low_key) / max(high_key - low_key, 1)
        guess = low + min(max(int(share * (high - low + 1)), 0), high - low)
        ids = _ids(files[guess])
        if len(ids) == 0 or not _in_order(ids, seed):
            return _scanned(files, image_id)
        first, last = _positions(ids.take(pa.array([0, len(ids) - 1])), seed)
        if wanted < first:
            high, high_key = guess - 1, first[0]
        elif wanted > last:
            low, low_key = guess + 1, last[0]
        else:
            return _with_neighbours(files, guess, image_id, before=wanted == first, after=wanted == last)
    return []


def _with_neighbours(
    files: Sequence[Path], number: int, image_id: str, *, before: bool, after: bool
) -> list[dict[str, Any]]:
    """The rows in a file; an image of several rows may begin in the one before or end in the one after."""
    first = last = number
    while before and first > 0 and _ids(files[first - 1])[-1].as_py() == image_id:
        first -= 1
    while after and last < len(files) - 1 and _ids(files[last + 1])[0].as_py() == image_id:
        last += 1
    return _scanned(files[first : last + 1], image_id)


def _scanned(files: Sequence[Path], image_id: str) -> list[dict[str, Any]]:
    found = []
    for file in files:
        at = pc.indices_nonzero(pc.equal(_ids(file), image_id))
        if len(at):
            rows = read_table(file).take(at).to_pylist()
            found += [{**row, "file": file.name, "row": index} for row, index in zip(rows, at.to_pylist(), strict=True)]
    return found


def _ids(file: Path) -> pa.Array:
    column = read_table(file, ["image_id"]).column("image_id").combine_chunks()
    return pa.concat_arrays(column.chunks) if isinstance(column, pa.ChunkedArray) else column


def _in_order(ids: pa.Array, seed: int) -> bool:
    keys = _keys(ids, seed)
    return bool(np.all(keys[1:] >= keys[:-1]))


def _keys(ids: pa.Array, seed: int) -> np.ndarray:
    words = np.ascontiguousarray(image_digests(ids)).view(">u8")[:, 0].astype(np.uint64)
    return order_keys(words, seed)


def _positions(ids: pa.Array, seed: int) -> list[_Position]:
    spelled = image_ids(image_digests(ids))
    return list(zip(_keys(ids, seed).tolist(), spelled.to_pylist(), strict=True))
