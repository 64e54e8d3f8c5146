"""The rules that keep a number of words: a fixed one, the raw caption's, or that of raw captions in general."""

import re
from collections.abc import Mapping
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from caploom.errors import ConfigError
from caploom.shearing.rule import Context, Row, Span, known
from caploom.shearing.spans import Spans

Statistic = Literal["mean"] | Annotated[int, Field(ge=1, le=100)]
"""A length of the raw captions: their mean, or a percentile (50 is the median)."""

USUAL_WORDS = 12
"""Words of an ordinary web caption, about: CC3M's have ten on average, CC12M's twenty."""

_WORD = re.compile(r"\S+")


def max_words(text: str, words: Annotated[int, Field(ge=1)]) -> Span:
    """Keep at most `words` words, cut between words: a cap that is the same for every captioner's tokenizer."""
    start, end = None, 0
    for number, match in enumerate(_WORD.finditer(text)):
        if number == words:
            break
        start = match.start() if start is None else start
        end = match.end()
    return (start, end) if start is not None else (0, len(text))


def match_raw(
    text: str,
    floor: Annotated[int, Field(ge=1)] = 3,
    otherwise: Annotated[int, Field(ge=1)] = USUAL_WORDS,
    *,
    row: Row,
) -> Span:
    """Keep no more words than this image's raw caption has: synthetic and raw captions then have one length.

    Of several raw captions the longest counts; `floor` words may always stay. Of an image without a raw caption
    `otherwise` words stay.
    """
    raw_words = known(row.raw_words, "match_raw", "the image's raw caption")
    return max_words(text, max(raw_words, floor) if raw_words else otherwise)


def match_corpus(
    text: str, length: Statistic = "mean", otherwise: Annotated[int, Field(ge=1)] | None = None, *, row: Row
) -> Span:
    """Keep no more words than raw captions have: the paper's definition, "the same length as the originals".

    `length` is their mean, or a percentile, over all ingested shards, rounded to whole words. Where there is no raw
    caption at all, `otherwise` words stay; without it that is an error.
    """
    return max_words(text, _corpus_words(row.corpus_words, length, otherwise))


def max_words_settled(text: str, words: int) -> bool:
    """Whether the first words are the same however the text goes on."""
    return len(text.split()) > words


def max_words_column(spans: Spans, context: Context, words: int) -> Spans:
    """`max_words` of each span."""
    return keep_words(spans, np.full(len(spans.start), words))


def match_raw_column(spans: Spans, context: Context, floor: int, otherwise: int) -> Spans:
    """`match_raw` of each span."""
    raw_words = known(context.raw_words, "match_raw", "the image's raw caption")
    return keep_words(spans, np.where(raw_words > 0, np.maximum(raw_words, floor), otherwise))


def match_corpus_column(spans: Spans, context: Context, length: Statistic, otherwise: int | None) -> Spans:
    """`match_corpus` of each span."""
    return max_words_column(spans, context, _corpus_words(context.corpus_words, length, otherwise))


def _corpus_words(corpus_words: Mapping[str, int], length: Statistic, otherwise: int | None) -> int:
    words = known(corpus_words.get(str(length)), "match_corpus", "the raw captions' length") or otherwise
    if not words:
        raise ConfigError(
            "The shear rule match_corpus has no raw caption whose length it could match: say how many words stay, as "
            f"in {{match_corpus: {length}, otherwise: {USUAL_WORDS}}}, or use another rule."
        )
    return words


def keep_words(spans: Spans, limit: np.ndarray) -> Spans:
    """Each span's first `limit` words (at least 1), without the whitespace around them; limit: shape (texts,)."""
    first, last = spans.word_range()
    words = spans.block.words
    some = last > first
    if not some.any():
        return spans
    kept = np.where(some, np.minimum(last, first + limit) - 1, 0)
    first = np.where(some, first, 0)
    start = np.where(some, np.maximum(words.starts[first], spans.start), spans.start)
    end = np.where(some, np.minimum(words.ends[kept], spans.end), spans.end)
    odd = np.flatnonzero(spans.block.odd_space)
    start[odd], end[odd] = spans.start[odd], spans.end[odd]
    return Spans(spans.block, start, end).by_row(lambda text, row: max_words(text, int(limit[row])), odd)


def mean_words(histogram: dict[int, int], statistic: Statistic) -> int:
    """A statistic of lengths counted as words -> captions, rounded to whole words; 0 of no captions, else at least 1.

    The percentile is the smallest length that at least that percentage of the captions doesn't exceed.
    """
    total = sum(histogram.values())
    if not total:
        return 0
    if statistic == "mean":
        return max(1, round(sum(words * count for words, count in histogram.items()) / total))
    reached = 0
    for words in sorted(histogram):
        reached += histogram[words]
        if reached * 100 >= total * statistic:
            return max(1, words)
    raise AssertionError("a percentile above 100")
