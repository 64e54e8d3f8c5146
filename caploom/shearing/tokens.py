"""The rules that keep a number of tokens, of CLIP's tokenizer or the captioner's own, cut between words.

CLIP's tokenizer splits at whitespace before anything else, so a text's tokens are the sum of its words', and words
recur: their counts are remembered. That is exact except for what it repairs first: HTML entities, control characters
and mojibake may span words. Such a text is given to the tokenizer as a whole, prefix by prefix.
"""

import re
from functools import cache, lru_cache
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field

from caploom.shearing.rule import Context, CountTokens, Row, Span, known
from caploom.shearing.spans import WHITE, Spans

_WORD = re.compile(r"\S+")
# What the tokenizer's cleaning removes, or reads across a word's edge. The wide ampersand becomes a plain one.
_WILD = re.compile("[&\uff06\x00-\x08\x0b-\x1f\x7f-\x9f\ufeff\ud800-\udfff\u206a-\u206f\ufff9-\ufffc]")
_LONG_WORD = 2_000  # characters: a longer word has more than enough tokens, and takes the tokenizer minutes
_LONG_TEXT = 20_000  # characters


def max_tokens(
    text: str,
    tokens: Annotated[int, Field(ge=1)] = 30,
    tokenizer: Literal["clip", "captioner"] = "clip",
    *,
    row: Row = Row(),  # noqa: B008 - it is frozen
) -> Span:
    """Keep at most `tokens` tokens, cut between words: the released code's cap is 30, of the captioner's own tokenizer.

    `clip` counts like CLIP's text encoder, whose context is 77. The first word stays even when it alone is longer.
    """
    if tokenizer == "captioner":
        count = known(row.count_tokens, "max_tokens with tokenizer: captioner", "the captioner's tokenizer")
        return _longest_fitting(text, tokens, count, guess=None)
    ends: list[int] = []
    used = guess = 0
    for word in _WORD.finditer(text):
        used += clip_tokens(word.group(), tokens)
        ends.append(word.end())
        if used > tokens and guess:
            break
        guess = len(ends)
    if not ends:
        return 0, len(text)
    start = len(text[: ends[0]]) - len(text[: ends[0]].lstrip())
    if is_tame(text[: ends[-1]]):
        return start, ends[guess - 1]
    return _longest_fitting(text, tokens, clip_count, guess=guess)


def paper_release(text: str, tokens: Annotated[int, Field(ge=1)] = 30) -> Span:
    """Keep 30 tokens, and of those the text before the first full stop: the released code's shear, for comparison.

    There the tokens are the captioner's, when it generates (`max_new_tokens`); here CLIP's. And where the release would
    return an empty caption, because the text begins with a full stop, the 30 tokens are kept.
    """
    start, end = max_tokens(text, tokens)
    stop = text.find(".", start, end)
    before = text[start:stop].rstrip() if stop >= 0 else ""
    return (start, start + len(before)) if before else (start, end)


def max_tokens_settled(text: str, tokens: int = 30, tokenizer: str = "clip") -> bool:
    """Whether the first tokens' words are the same for every continuation of the text."""
    if tokenizer != "clip":
        return False
    words = text.split()
    whole = words if text[-1:].isspace() else words[:-1]  # the last word may go on
    return is_tame(text) and sum(clip_tokens(word, tokens) for word in whole) > tokens


def max_tokens_column(spans: Spans, context: Context, tokens: int, tokenizer: str) -> Spans:
    """`max_tokens` of each span."""
    if tokenizer == "captioner":
        return spans.by_row(lambda text, row: max_tokens(text, tokens, "captioner", row=context.row(row)))
    block = spans.block
    first, last = spans.word_range()
    wild = _wild_rows(spans)
    # Every word of a tame text has a token: later words need no check.
    counted = np.where(wild | (last <= first), 0, np.minimum(last - first, tokens + 1))
    before = np.cumsum(counted) - counted
    total = int(counted.sum())
    number = np.repeat(first - before, counted) + np.arange(total)
    low = np.maximum(block.words.starts[number], np.repeat(spans.start, counted))
    high = np.minimum(block.words.ends[number], np.repeat(spans.end, counted))
    used = np.concatenate([[0], np.cumsum(_count_words(spans, low, high, tokens))])
    # The first word whose tokens go beyond, of all words of all texts at once.
    fitting = np.searchsorted(used, used[before] + tokens, side="right") - 1 - before
    kept = np.clip(fitting, 1, np.maximum(counted, 1))
    rows = np.flatnonzero(counted)
    start, end = spans.start.copy(), spans.end.copy()
    start[rows] = low[before[rows]]
    end[rows] = high[before[rows] + kept[rows] - 1]
    careful = np.flatnonzero(wild)
    return Spans(block, start, end).by_row(lambda text, _: max_tokens(text, tokens), careful)


def paper_release_column(spans: Spans, context: Context, tokens: int) -> Spans:
    """`paper_release` of each span."""
    capped = max_tokens_column(spans, context, tokens, "clip")
    stops = np.flatnonzero(spans.block.data == 46)
    first = np.append(stops, len(spans.block.data))[np.searchsorted(stops, capped.start)]
    stopped = first < capped.end
    # Where whitespace may precede the stop, the scalar rule decides.
    plain = stopped & (first > capped.start) & ~WHITE[spans.block.data[first - 1]] & ~spans.block.odd_space
    rows = np.flatnonzero(stopped & ~plain)
    capped = Spans(spans.block, capped.start, np.where(plain, first, capped.end))
    return capped.by_row(lambda text, _: paper_release(text, tokens), rows)


def clip_tokens(word: str, tokens: int) -> int:
    """The number of CLIP tokens of a word; for a very long one, only whether it is more than `tokens`."""
    if len(word) > max(_LONG_WORD, tokens * _longest_token()):
        return tokens + 1
    return _clip_tokens(word)


def clip_count(text: str) -> int:
    """The number of CLIP tokens of a text, without the start and end tokens."""
    return len(_clip_tokenizer().encode(text)) if len(text) <= _LONG_TEXT else len(text)


def is_tame(text: str) -> bool:
    """Whether CLIP's tokenizer treats the text exactly as it treats its single words."""
    from ftfy.badness import is_bad  # a part of open_clip's tokenizer

    # Without surrounding whitespace, as it will be read: some mojibake is recognized only at the very beginning.
    return _WILD.search(text) is None and (text.isascii() or not is_bad(text.strip()))


def _longest_fitting(text: str, tokens: int, count: CountTokens, guess: int | None) -> Span:
    """The longest prefix of words that fits, searched around `guess` words."""
    words = [match.span() for match in _WORD.finditer(text)]
    if not words:
        return 0, len(text)
    start = words[0][0]

    def fits(number: int) -> bool:
        return count(text[start : words[number - 1][1]]) <= tokens

    fitting, beyond = 1, len(words) + 1
    if guess is None:
        guess = len(words)
    if fits(guess):
        fitting = guess
        while fitting < len(words) and fits(fitting + 1):
            fitting += 1
        return start, words[fitting - 1][1]
    beyond = guess
    while beyond - fitting > 1:
        middle = (fitting + beyond) // 2
        fitting, beyond = (middle, beyond) if fits(middle) else (fitting, middle)
    return start, words[fitting - 1][1]


def _wild_rows(spans: Spans) -> np.ndarray:
    """The texts that must be tokenized as a whole; bool, shape (texts,)."""
    block = spans.block
    data = block.data
    found = (data == 38) | (data == 127) | ((data < 32) & (data != 10) & (data != 9))
    at = np.flatnonzero(found)
    wild = block.rows_of(at[(at >= block.offsets[0]) & (at < block.offsets[-1])])  # the padding is not text
    wild |= block.odd_space
    beyond = np.flatnonzero(block.beyond_ascii & ~wild)
    low, high = spans.start[beyond].tolist(), spans.end[beyond].tolist()
    wild[beyond] = [not is_tame(block.text(*span)) for span in zip(low, high, strict=True)]
    return wild


def _count_words(spans: Spans, low: np.ndarray, high: np.ndarray, tokens: int) -> np.ndarray:
    """The numbers of CLIP tokens of the words between these byte positions; int64, shape (words,)."""
    words = spans.block.texts_between(low, high).dictionary_encode()
    counts = [clip_tokens(word, tokens) for word in words.dictionary.to_pylist()]
    counted: np.ndarray = np.array(counts, np.int64)[words.indices.to_numpy()]
    return counted


@lru_cache(maxsize=500_000)
def _clip_tokens(word: str) -> int:
    tokenizer = _clip_tokenizer()
    if not word.isascii() or _WILD.search(word):
        return len(tokenizer.encode(word))
    # What `encode` does with a word that needs no cleaning; an ASCII letter represents its byte.
    return sum(tokenizer.bpe(piece).count(" ") + 1 for piece in tokenizer.pat.findall(word.lower()))


@cache
def _clip_tokenizer() -> Any:
    import open_clip  # heavy: only where tokens are counted

    return open_clip.SimpleTokenizer()


@cache
def _longest_token() -> int:
    return max(map(len, _clip_tokenizer().encoder))
