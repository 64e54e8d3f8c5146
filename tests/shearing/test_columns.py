"""The column forms equal the scalar rules, on every row."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nasty_texts import NASTY, TEXTS
from test_rules import SHEARS

from benchmarks.captions import caption_column
from caploom.shearing.apply import shear_column, shear_span
from caploom.shearing.rule import Context
from caploom.shearing.settings import ShearStep
from caploom.shearing.spans import Spans


def steps_of(shear):
    return [ShearStep.model_validate(step) for step in shear]


def context_of(count):
    raw = np.array([number % 7 for number in range(count)])
    corpus = {"mean": 5, "75": 2}
    return Context([str(number) for number in range(count)], "captioner", raw, corpus, lambda text: len(text) // 3)


def assert_equal_to_scalar(texts, steps):
    texts = [text for text in texts if not any("\ud800" <= sign <= "\udfff" for sign in text)]  # Arrow has none
    context = context_of(len(texts))
    column = shear_column(pa.array(texts, pa.string()), steps, context)
    for number, text in enumerate(texts):
        start, end = shear_span(text, steps, context.row(number))
        assert (column.start[number], column.end[number]) == (start, end), f"{steps}: {text!r}"
        assert column.texts[number].as_py() == text[start:end]
        assert column.source_words[number] == len(text.split())
        assert column.words[number] == len(text[start:end].split())
        assert column.cut[number] == (text[start:end].strip() != text.strip())


@pytest.mark.parametrize("shear", SHEARS, ids=str)
def test_a_column_is_sheared_as_its_texts_are(shear):
    texts = [*NASTY, *caption_texts(400)]
    assert_equal_to_scalar(texts, steps_of(shear))


@settings(max_examples=100, deadline=None)
@given(texts=st.lists(TEXTS, max_size=8))
def test_any_column_is_sheared_as_its_texts_are(texts):
    for shear in SHEARS:  # of each drawn column: drawing takes longer than shearing
        assert_equal_to_scalar(texts, steps_of(shear))


def test_every_realistic_first_sentence_is_the_scalar_rule_s():
    assert_equal_to_scalar(caption_texts(5000, seed=1), steps_of(["first_sentence"]))


def test_a_slice_of_a_column_with_nulls_is_sheared_like_one_without():
    texts = pa.array(["x. y", None, "A dog. A cat.", "Ein Hörnchen. Ja."]).slice(1)
    column = shear_column(texts, steps_of(["first_sentence"]), Context())
    assert column.texts.to_pylist() == ["", "A dog.", "Ein Hörnchen."]
    assert column.start.tolist() == [0, 0, 0]
    assert column.end.tolist() == [0, 6, 13]
    assert len(shear_column(pa.array([], pa.string()), steps_of(["first_sentence"]), Context()).texts) == 0


def test_whether_a_cap_was_reached_is_told():
    texts = pa.array(["one two three", "one two", "one two. Three"])
    column = shear_column(texts, steps_of(["first_sentence", {"max_words": 2}]), Context())
    assert column.at_cap.tolist() == [True, False, False]
    assert column.cut.tolist() == [True, False, True]


def test_a_text_of_a_quarter_of_a_million_characters_is_sheared_in_seconds():
    """A rule whose time grows with the square of a text's length would take hours."""
    pieces = ("St. ", "a", "。", "\x01 ")
    texts = [piece * (250_000 // len(piece)) for piece in pieces]
    for shear in SHEARS:
        if shear != [{"max_tokens": 5, "tokenizer": "captioner"}]:
            column = shear_column(pa.array(texts), steps_of(shear), context_of(len(texts)))
            assert all(text.as_py().strip() for text in column.texts)


def test_spans_in_characters_and_back():
    texts = pa.array(["abc", "äöü 猫🐶", ""])
    start, end = [1, 2, 0], [2, 5, 0]
    spans = Spans.whole(texts).by_row(lambda _, row: (start[row], end[row]))
    assert spans.texts().to_pylist() == ["b", "ü 猫", ""]
    assert [each.tolist() for each in spans.characters()] == [start, end]


def caption_texts(count, seed=0):
    return [text for block in caption_column(count, seed=seed) for text in block.to_pylist()]
