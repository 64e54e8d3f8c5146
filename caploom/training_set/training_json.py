"""Writes the released code's JSON: `[{"image", "caption", "source"}, ...]`, one object per line, in row order.

The text is assembled by Arrow's kernels: most captions contain nothing that JSON escapes, which a search for a few
bytes shows. A caption's escapes are those of Python's `json` with `ensure_ascii=False`.
"""

import json
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

_BLOCK_ROWS = 8_192


class TrainingJson:
    """Writes rows (schema TRAINING_ROWS) as they come; the file is complete JSON once the block has ended."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("wb")
        self._empty = True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        with self._file:
            if kind is None:
                self._file.write(b"[]\n" if self._empty else b"\n]\n")

    def write(self, rows: pa.Table) -> None:
        """Append every caption of the rows."""
        for start in range(0, len(rows), _BLOCK_ROWS):
            for batch in rows.slice(start, _BLOCK_ROWS).to_batches():
                self._write_batch(batch)

    def _write_batch(self, batch: pa.RecordBatch) -> None:
        captions, sources = batch.column("captions"), batch.column("sources")
        if len(captions.flatten()) == 0:
            return
        image_of = pc.list_parent_indices(captions)
        heads = _joined(['\n{"image": "', json_escaped(batch.column("image")), '", "caption": "'])
        source = sources.flatten().dictionary_encode()
        tails = _joined(['", "source": "', json_escaped(source.dictionary), '"},']).take(source.indices)
        lines = _joined([heads.take(image_of), json_escaped(captions.flatten()), tails])
        text = _text(lines)
        # Each line ends in a comma; the last one's is written with the line after it.
        self._file.write(b"[" if self._empty else b",")
        self._file.write(pa.py_buffer(text[:-1]))
        self._empty = False


def json_escaped(texts: pa.Array) -> pa.Array:
    """Texts as they appear between the quotes of a JSON string."""
    data = _text(texts)
    found = [np.flatnonzero(data == ord(mark)) for mark in '"\\']
    if len(data) and data.min() < 0x20:
        found.append(np.flatnonzero(data < 0x20))
    positions = np.concatenate(found)
    if len(positions) == 0:
        return texts
    starts = np.frombuffer(texts.buffers()[1], np.int32)[texts.offset : texts.offset + len(texts) + 1]
    escaped = np.zeros(len(texts), bool)
    # A position belongs to the last text that starts at or before it: empty texts before it start there too.
    escaped[np.searchsorted(starts, positions + starts[0], side="right") - 1] = True
    mask = pa.array(escaped)
    values = [json.dumps(text, ensure_ascii=False)[1:-1] for text in texts.filter(mask).to_pylist()]
    return pc.replace_with_mask(texts, mask, pa.array(values, pa.string()))


def _joined(parts: list[pa.Array | str]) -> pa.Array:
    return pc.binary_join_element_wise(*parts, "")


def _text(texts: pa.Array) -> np.ndarray:
    """The UTF-8 bytes of a column, one text after another: (bytes,) uint8, not copied."""
    data = texts.buffers()[2]
    if len(texts) == 0 or data is None:
        return np.empty(0, np.uint8)
    starts = np.frombuffer(texts.buffers()[1], np.int32)
    return np.frombuffer(data, np.uint8)[starts[texts.offset] : starts[texts.offset + len(texts)]]
