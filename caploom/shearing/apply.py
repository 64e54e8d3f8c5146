"""Applies a shear: its rules one after another, to one text or to a column of texts."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from caploom.shearing.rule import Context, Row, Span
from caploom.shearing.rules import RULES
from caploom.shearing.settings import ShearStep
from caploom.shearing.spans import Spans


def shear_span(text: str, steps: Sequence[ShearStep], row: Row = Row()) -> Span:  # noqa: B008 - it is frozen
    """The span `(start, end)`, in characters, that a shear's steps keep, each working on the previous one's result.

    Example:
        >>> text = "A dog runs. It is happy, or so it seems."
        >>> start, end = shear_span(text, [ShearStep.model_validate("first_sentence")])
        >>> text[start:end]
        'A dog runs.'
    """
    if not text.strip():
        return 0, len(text)
    start, end = 0, len(text)
    for step in steps:
        inner = RULES[step.rule].call(text[start:end], step.parameters, row)
        start, end = start + inner[0], start + inner[1]
    return start, end


@dataclass(frozen=True)
class ShearedColumn:
    """The part of each text that a shear keeps; every array has one entry per text.

    `start` and `end`: int32, in characters of the text. `texts`: the kept texts. `source_words` and `words`: int32,
    before and after. `cut`: bool, whether more than whitespace was cut off. `at_cap`: bool, whether a rule that caps
    the length cut it.
    """

    start: np.ndarray
    end: np.ndarray
    texts: pa.Array
    source_words: np.ndarray
    words: np.ndarray
    cut: np.ndarray
    at_cap: np.ndarray


def shear_column(texts: pa.Array, steps: Sequence[ShearStep], context: Context) -> ShearedColumn:
    """The same as `shear_span` of every text; `texts` is a string array, nulls count as empty.

    Example:
        >>> texts = pa.array(["A dog runs. It is happy.", "A cat."])
        >>> shear_column(texts, [ShearStep.model_validate({"max_words": 2})], Context()).texts.to_pylist()
        ['A dog', 'A cat.']
    """
    whole = Spans.whole(texts)
    source_words = whole.count_words()
    blank = source_words == 0
    kept = whole
    at_cap = np.zeros(len(whole.start), bool)
    for step in steps:
        rule = RULES[step.rule]
        before = kept.end
        kept = rule.apply(kept, step.parameters, context)
        # A text without words stays unchanged.
        kept = Spans(kept.block, np.where(blank, whole.start, kept.start), np.where(blank, whole.end, kept.end))
        if rule.caps:
            at_cap |= kept.end < before
    start, end = kept.characters()
    # A cut inside a word, as between CJK sentences, doesn't change the number of words.
    words = kept.count_words()
    stripped = whole.stripped()
    cut = ~blank & ((kept.start > stripped.start) | (kept.end < stripped.end))
    return ShearedColumn(start, end, kept.texts(), source_words, words, cut, at_cap)
