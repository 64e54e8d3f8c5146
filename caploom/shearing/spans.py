"""Spans of many texts at once, over the bytes of an Arrow column, for the vector forms of the rules."""

from collections.abc import Callable
from functools import cached_property
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

_PAD = 16  # bytes before and after the texts, so that reading around a text's edge stays in the buffer

# The ASCII characters for which `str.isspace` is true.
WHITE = np.zeros(256, bool)
WHITE[[*range(9, 14), *range(28, 33)]] = True


class Words(NamedTuple):
    """Byte positions where words begin and end, over all texts of a block; both int64, shape (words,)."""

    starts: np.ndarray
    ends: np.ndarray


class Block:
    """The UTF-8 bytes of a column of texts, nulls as empty ones.

    `data`: uint8, shape (bytes + padding,). `offsets`: int64, shape (texts + 1,); text i is
    `data[offsets[i]:offsets[i + 1]]`.
    """

    def __init__(self, texts: pa.Array) -> None:
        texts = texts.cast(pa.large_string()) if texts.type != pa.large_string() else texts
        if texts.null_count:
            texts = texts.fill_null("")
        self.texts = texts
        _, offsets, data = texts.buffers()
        bounds = np.frombuffer(offsets, np.int64)[texts.offset : texts.offset + len(texts) + 1] if len(texts) else [0]
        first, last = int(bounds[0]), int(bounds[-1])
        self.data = np.zeros(last - first + 2 * _PAD, np.uint8)
        if last > first:
            self.data[_PAD:-_PAD] = np.frombuffer(data, np.uint8)[first:last]
        self.offsets = np.asarray(bounds, np.int64) - first + _PAD
        self._view = memoryview(self.data)  # type: ignore[arg-type]

    def __len__(self) -> int:
        return len(self.texts)

    def text(self, start: int, end: int) -> str:
        """The text between two byte positions."""
        return str(self._view[start:end], "utf-8")

    def texts_between(self, starts: np.ndarray, ends: np.ndarray) -> pa.Array:
        """The texts between pairs of byte positions; a large string array."""
        edges = np.empty(2 * len(starts), np.int64)
        edges[0::2], edges[1::2] = starts, ends
        if not len(edges):
            return pa.array([], pa.large_string())
        pieces = pa.LargeStringArray.from_buffers(len(edges) - 1, pa.py_buffer(edges), pa.py_buffer(self.data))
        return pieces.take(pa.array(np.arange(0, len(edges), 2)))

    @cached_property
    def beyond_ascii(self) -> np.ndarray:
        """Which texts contain non-ASCII characters; bool, shape (texts,)."""
        return np.asarray(np.asarray(pc.utf8_length(self.texts)) != np.diff(self.offsets))

    def rows_of(self, positions: np.ndarray) -> np.ndarray:
        """Which texts contain one of these byte positions; bool, shape (texts,)."""
        held = np.zeros(len(self), bool)
        held[np.searchsorted(self.offsets, positions, side="right") - 1] = True
        return held

    @cached_property
    def odd_space(self) -> np.ndarray:
        """Which texts contain non-ASCII whitespace (no-break, ideographic, ...); bool, shape (texts,)."""
        if not self.beyond_ascii.any():
            return np.zeros(len(self), bool)
        at = np.flatnonzero((self.data == 0xC2) | ((self.data >= 0xE1) & (self.data <= 0xE3)))
        first, second, third = self.data[at], self.data[at + 1], self.data[at + 2]
        odd = (first == 0xC2) & ((second == 0x85) | (second == 0xA0))
        odd |= (first == 0xE1) & (second == 0x9A) & (third == 0x80)
        general = (third <= 0x8A) | (third == 0xA8) | (third == 0xA9) | (third == 0xAF)
        odd |= (first == 0xE2) & (second == 0x80) & general
        odd |= (first == 0xE2) & (second == 0x81) & (third == 0x9F)
        odd |= (first == 0xE3) & (second == 0x80) & (third == 0x80)
        return self.rows_of(at[odd])

    @cached_property
    def words(self) -> Words:
        """The words between ASCII whitespace of every text."""
        data = self.data
        white = (data == 32) | ((data >= 9) & (data <= 13)) | ((data >= 28) & (data <= 31))
        black = ~white
        black[:_PAD] = black[len(black) - _PAD :] = False
        starts, ends = black.copy(), black.copy()
        starts[1:] &= white[:-1]
        ends[:-1] &= white[1:]
        # One text's last word and the next text's first have no whitespace between them.
        edges = self.offsets[:-1][np.diff(self.offsets) > 0]
        starts[edges] |= black[edges]
        lasts = self.offsets[1:][np.diff(self.offsets) > 0] - 1
        ends[lasts] |= black[lasts]
        return Words(np.flatnonzero(starts), np.flatnonzero(ends) + 1)


class Spans:
    """A span of each text of a block, in bytes: `start` and `end`, int64 positions in `block.data`, shape (texts,)."""

    def __init__(self, block: Block, start: np.ndarray, end: np.ndarray) -> None:
        self.block = block
        self.start = start
        self.end = end

    @classmethod
    def whole(cls, texts: pa.Array) -> "Spans":
        """The whole texts."""
        block = Block(texts)
        return cls(block, block.offsets[:-1].copy(), block.offsets[1:].copy())

    def characters(self) -> tuple[np.ndarray, np.ndarray]:
        """The spans as (start, end) in characters of the texts; int32, shape (texts,)."""
        low = self.block.offsets[:-1]
        start, end = self.start - low, self.end - low
        for row in np.flatnonzero(self.block.beyond_ascii).tolist():
            start[row] = len(self.block.text(int(low[row]), int(self.start[row])))
            end[row] = start[row] + len(self.block.text(int(self.start[row]), int(self.end[row])))
        return start.astype(np.int32), end.astype(np.int32)

    def by_row(self, function: Callable[[str, int], tuple[int, int]], rows: np.ndarray | None = None) -> "Spans":
        """These spans, with those of `rows` (by default all) narrowed by a function of a text and its row's number."""
        start, end = self.start.copy(), self.end.copy()
        chosen = np.arange(len(start)) if rows is None else rows
        block = self.block
        beyond = block.beyond_ascii[chosen].tolist()
        bounds = zip(chosen.tolist(), start[chosen].tolist(), end[chosen].tolist(), beyond, strict=True)
        for row, low, high, wide in bounds:
            text = block.text(low, high)
            first, last = function(text, row)
            if wide:
                first, last = len(text[:first].encode()), len(text[:last].encode())
            start[row], end[row] = low + first, low + last
        return Spans(block, start, end)

    def word_range(self) -> tuple[np.ndarray, np.ndarray]:
        """The words of each span as a range (first, end) of `block.words`; a span may begin inside a word."""
        words = self.block.words
        return np.searchsorted(words.ends, self.start, side="right"), np.searchsorted(words.starts, self.end)

    def count_words(self) -> np.ndarray:
        """Number of words, separated by whitespace, in each span; int32, shape (texts,)."""
        first, last = self.word_range()
        counts: np.ndarray = np.maximum(last - first, 0).astype(np.int32)
        for row in np.flatnonzero(self.block.odd_space).tolist():
            counts[row] = len(self.block.text(int(self.start[row]), int(self.end[row])).split())
        return counts

    def stripped(self) -> "Spans":
        """These spans without the whitespace at their edges; a blank one stays unchanged."""
        words = self.block.words
        if not len(words.starts):
            return self
        first, last = self.word_range()
        some = (last > first) & ~self.block.odd_space
        start = np.where(some, np.maximum(words.starts[np.where(some, first, 0)], self.start), self.start)
        end = np.where(some, np.minimum(words.ends[np.where(some, last - 1, 0)], self.end), self.end)
        return Spans(self.block, start, end).by_row(_strip, np.flatnonzero(self.block.odd_space))

    def texts(self) -> pa.Array:
        """The texts of the spans; a string array."""
        return self.block.texts_between(self.start, self.end).cast(pa.string())


def _strip(text: str, row: int) -> tuple[int, int]:
    start = len(text) - len(text.lstrip())
    return (start, len(text.rstrip())) if start < len(text) else (0, len(text))
