"""Columns of a table of captions grouped by image, in one piece."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc


def text_column(captions: pa.Table, name: str = "caption") -> pa.Array:
    """A column of a table in one piece, as strings."""
    pieces = [chunk.cast(pa.string()) for chunk in captions[name].chunks if len(chunk)]
    return pa.concat_arrays(pieces) if pieces else pa.array([], pa.string())


def image_starts(image_ids: pa.Array) -> np.ndarray:
    """The indices at which another image begins: int64."""
    if len(image_ids) == 0:
        return np.zeros(0, np.int64)
    changes = pc.not_equal(image_ids.slice(1), image_ids.slice(0, len(image_ids) - 1)).to_numpy(zero_copy_only=False)
    return np.append(0, np.flatnonzero(changes) + 1)


def image_numbers(captions: pa.Table) -> np.ndarray:
    """int64 of shape (captions,): 0, 0, 1, ...: the index of each caption's image in the bucket."""
    starts = image_starts(text_column(captions, "image_id"))
    return np.repeat(np.arange(len(starts)), np.diff(np.append(starts, len(captions))))
