"""The sentence rules over a column: most stops are decided from a few bytes, the rest by the scalar rule.

A plain regex does about 40,000 captions per second. Here the stops of all texts are found at once; one that follows a
longer word and precedes a space and a capital ends a sentence, one inside "3.5" doesn't, and only difficult cases
(abbreviations that may end a sentence, acronyms, quotes, ellipses, other scripts) go to the scalar rule.
"""

import numpy as np

from caploom.shearing import sentences
from caploom.shearing.rule import Context
from caploom.shearing.spans import WHITE, Block, Spans

_ROUNDS = 8  # stops checked in a text before it is left to the scalar rule
_MANY = 24  # sentences of a text before it is left to the scalar rule
_LOOK_BACK = 8  # bytes: one more than the longest abbreviation

_SPACE, _BLANK, _STOP, _CLOSING, _LOWER, _HIGH, _OTHER = range(7)
_KIND = np.full(256, _OTHER, np.uint8)
_KIND[WHITE] = _BLANK
_KIND[32] = _SPACE
_KIND[list(b".!?\n\r")] = _STOP
_KIND[list(b"\"')]")] = _CLOSING
_KIND[list(b"abcdefghijklmnopqrstuvwxyz")] = _LOWER
_KIND[128:] = _HIGH
_LETTER = np.zeros(256, bool)
_LETTER[list(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")] = True
_WORD_EDGE = WHITE.copy()
_WORD_EDGE[list(b"(\"'[")] = True
# A text with such a beginning has nothing to keep before its first letter.
_NO_CONTENT = WHITE.copy()
_NO_CONTENT[list(b".!?\"'()[]")] = True


def _keys(words: frozenset[str]) -> np.ndarray:
    """ASCII words of at most 8 letters as sorted integers, the last letter in the highest byte."""
    short = [word.rjust(_LOOK_BACK, "\0").encode() for word in words if word.isalpha()]
    return np.sort(np.frombuffer(b"".join(short), "<u8"))


_TITLES = _keys(sentences.TITLES)
_MAY_END = _keys(sentences.MAY_END)


def first_sentence(spans: Spans, context: Context) -> Spans:
    """`sentences.first_sentence` of each span."""
    narrowed, left = _first_sentence(spans)
    return narrowed.by_row(lambda text, _: sentences.first_sentence(text), left)


def count_sentences(spans: Spans, context: Context, count: int) -> Spans:
    """`sentences.sentences` of each span."""
    first = first_sentence(spans, context)
    end = first.end.copy()
    for _ in range(count - 1):
        rest, more = _after(spans, end)
        if not more.any():
            break
        end = np.where(more, first_sentence(rest, context).end, end)
    return Spans(spans.block, first.start, end)


def random_sentence(spans: Spans, context: Context, seed: int) -> Spans:
    """`sentences.random_sentence` of each span."""
    count = np.zeros(len(spans.start), np.int64)
    found: list[Spans] = []
    rest, more = spans, spans.start < spans.end
    while more.any() and len(found) < _MANY:
        found.append(first_sentence(rest, context))
        count += more
        rest, more = _after(spans, np.where(more, found[-1].end, spans.end))
    start, end = spans.start.copy(), spans.end.copy()
    for row in np.flatnonzero(count > 0).tolist():
        known = context.row(row)
        chosen = found[sentences.draw(known.image_id, known.captioner, seed, int(count[row]))]
        start[row], end[row] = chosen.start[row], chosen.end[row]
    longer = np.flatnonzero(more)
    start[longer], end[longer] = spans.start[longer], spans.end[longer]
    return Spans(spans.block, start, end).by_row(
        lambda text, row: sentences.random_sentence(text, seed, row=context.row(row)), longer
    )


def _after(spans: Spans, end: np.ndarray) -> tuple[Spans, np.ndarray]:
    """The spans after `end`, and which of them are more than whitespace."""
    start = end.copy()
    data = spans.block.data
    for _ in range(4):
        start += WHITE[data[start]] & (start < spans.end)
    more = start < spans.end
    for row in np.flatnonzero(more & (WHITE[data[start]] | spans.block.odd_space)).tolist():
        more[row] = not spans.block.text(int(start[row]), int(spans.end[row])).isspace()
    return Spans(spans.block, np.where(more, start, spans.end), spans.end), more


def _first_sentence(spans: Spans) -> tuple[Spans, np.ndarray]:
    """The spans of those that are decided here, and the rows that are not."""
    block, data, start = spans.block, spans.block.data, spans.start
    stops = _stops(block)
    end = spans.end.copy()
    empty = start >= end
    # Whitespace at an edge, or a stop or a quote at the beginning, is rare: the scalar rule handles it.
    hard = ~empty & (_NO_CONTENT[data[start]] | WHITE[data[end - 1]] | block.odd_space | (data[start] >= 0xE0))
    nearest = np.searchsorted(stops, start)
    stops = np.append(stops, len(data))
    pending = np.flatnonzero(~hard & ~empty)
    for _ in range(_ROUNDS):
        at = stops[nearest[pending]]
        inside = at < end[pending]  # without a stop the whole span is the sentence
        pending, at = pending[inside], at[inside]
        if not len(pending):
            break
        ends, goes_on = _decide(data, at, start[pending], end[pending])
        end[pending[ends]] = at[ends] + 1
        hard[pending[~ends & ~goes_on]] = True
        pending = pending[goes_on]
        nearest[pending] += 1
    else:
        hard[pending] = True
    rows = np.flatnonzero(hard)
    end[rows] = spans.end[rows]
    return Spans(block, start, end), rows


def _stops(block: Block) -> np.ndarray:
    """Positions of the bytes that may end a sentence: ASCII stops, and first bytes of other scripts' stops."""
    data = block.data
    found = (data == 46) | (data == 33) | (data == 63) | (data == 10) | (data == 13)
    if block.beyond_ascii.any():
        found |= (data == 0xD8) | (data == 0xDB) | ((data >= 0xE0) & (data <= 0xEF))
    return np.flatnonzero(found)


def _decide(data: np.ndarray, at: np.ndarray, start: np.ndarray, end: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Whether a stop surely ends the sentence, and whether it surely doesn't; neither where care is needed."""
    mark, after, then = data[at], _KIND[data[at + 1]], _KIND[data[at + 2]]
    ascii_stop = (mark == 46) | (mark == 33) | (mark == 63)
    last = at + 1 >= end
    blank = ~last & (after == _SPACE) & (at + 2 < end)
    capital = blank & ((then == _OTHER) | (then == _CLOSING))  # or a digit, a quote: anything but lower case
    ends = ascii_stop & last
    ends |= (mark != 46) & ascii_stop & (capital | (blank & (then == _LOWER)))
    goes_on = ascii_stop & ~last & ((after == _LOWER) | (after == _OTHER))
    goes_on |= (mark == 46) & blank & (then == _LOWER)
    asked = np.flatnonzero((mark == 46) & capital)
    plain, title = _word_before(data, at[asked], start[asked])
    ends[asked] |= plain
    goes_on[asked] |= title
    # Curly quotes and dashes begin with the same byte as "…" and are not stops.
    goes_on |= (mark == 0xE2) & (data[at + 1] == 0x80) & (data[at + 2] >= 0x90) & (data[at + 2] <= 0x9F)
    return ends, goes_on


def _word_before(data: np.ndarray, at: np.ndarray, start: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Whether the word before a full stop is surely an ordinary one, and whether it is a title such as "Dr"."""
    positions = at[:, None] + np.arange(-_LOOK_BACK, 0)
    around = np.where(positions >= start[:, None], data[positions], 32).astype(np.uint8)
    in_word = np.logical_and.accumulate(_LETTER[around][:, ::-1], axis=1)[:, ::-1]
    letters = in_word.sum(axis=1)
    before = around[np.arange(len(at)), np.maximum(_LOOK_BACK - 1 - letters, 0)]
    long = letters >= _LOOK_BACK
    alone = ~long & (letters > 0) & _WORD_EDGE[before]
    # "state-of-the-art.", "2020.": an abbreviation has only letters; but after a stop, as in "U.S.", or
    # beyond ASCII, the scalar rule decides.
    joined = ~long & ~alone & (before != 46) & (before < 128)
    folded = np.ascontiguousarray(np.where(in_word, around | 0x20, 0).astype(np.uint8)).view("<u8")[:, 0]
    title = alone & np.isin(folded, _TITLES)
    plain = long | joined | (alone & (letters > 1) & ~title & ~np.isin(folded, _MAY_END))
    return plain, title
