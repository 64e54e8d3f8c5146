"""Shears whole tables of captions, in blocks of bounded size."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from caploom.shearing.apply import shear_column
from caploom.shearing.rule import Context
from caploom.shearing.settings import ShearStep
from caploom.storage.records import SHEARED

_BLOCK_ROWS = 8192
_BLOCK_BYTES = 32 * 2**20  # of text


def shear_table(captions: pa.Table, steps: Sequence[ShearStep], context: Context) -> pa.Table:
    """Captions (columns image_id, captioner and text) as SHEARED, processed in blocks of bounded size."""
    parts = [SHEARED.empty_table()]
    for start, end in _blocks(captions.column("text")):
        block = captions.slice(start, end - start).combine_chunks()
        texts = block.column("text").cast(pa.large_string()).combine_chunks()
        sheared = shear_column(texts, steps, context.slice(start, end))
        columns: dict[str, Any] = {
            "image_id": block.column("image_id"),
            "captioner": block.column("captioner"),
            "start": sheared.start,
            "end": sheared.end,
            "caption": sheared.texts,
            "source_words": sheared.source_words,
            "words": sheared.words,
            "cut": sheared.cut,
            "at_cap": sheared.at_cap,
        }
        parts.append(pa.table(columns).cast(SHEARED))
    return pa.concat_tables(parts)


def _blocks(texts: pa.ChunkedArray) -> Iterator[tuple[int, int]]:
    """Ranges of rows, each of a bounded number of rows and of bytes (but one row may be longer)."""
    reached = np.cumsum(np.asarray(pc.fill_null(pc.binary_length(texts), 0), np.int64))
    start, before = 0, 0
    while start < len(texts):
        fitting = int(np.searchsorted(reached, before + _BLOCK_BYTES, side="right"))
        end = min(max(fitting, start + 1), start + _BLOCK_ROWS, len(texts))
        yield start, end
        start, before = end, int(reached[end - 1])
