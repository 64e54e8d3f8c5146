import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from caploom.captioning.stopping import can_settle, is_settled
from caploom.shearing.apply import shear_span
from caploom.shearing.settings import ShearStep


def shear(*steps):
    return [ShearStep.model_validate(step) for step in steps]


FIRST = shear("first_sentence")
SHEARS = [
    FIRST,
    shear({"max_words": 3}),
    shear({"max_tokens": 4}),
    shear("first_sentence", {"max_tokens": 4}),
    shear({"max_words": 5}, "first_sentence"),
    shear({"max_tokens": 6}, "first_sentence"),
    shear("first_sentence", {"max_words": 2}),
]


def sheared(text, steps):
    start, end = shear_span(text, steps)
    return text[start:end]


@pytest.mark.parametrize(
    ("text", "settled"),
    [
        ("A red square", False),
        ("A red square.", False),  # "3." may become "3.5"
        ("A red square. ", False),
        ("A red square. I", True),
        ("A square of 3.", False),
        ("A square of 3.5 m", False),
        ("St. Peter", False),
        ("A boat of the U.S. The", False),  # may become "Theodore"
        ("A boat of the U.S. The ", True),
        ("A boat of the U.S. Army", False),
        ("Two lines\n", True),
        ("赤い船。", False),
        ("赤い船。空", True),
        ("", False),
        ("?", False),
    ],
)
def test_a_text_is_settled_when_its_first_sentence_is(text, settled):
    assert is_settled(text, [FIRST]) is settled


def test_every_shear_must_have_enough():
    text = "A square. It is"
    assert is_settled(text, [FIRST])
    assert not is_settled(text, [FIRST, shear({"max_words": 9})])
    assert not is_settled(text, [FIRST, []])
    assert not is_settled(text, [])


def test_which_shears_can_be_settled_at_all():
    assert can_settle([FIRST])
    assert not can_settle([FIRST, []])
    assert not can_settle([shear("strip_boilerplate", "first_sentence")])
    assert can_settle([shear("first_sentence", "strip_boilerplate")])
    assert not can_settle([])


PIECES = st.sampled_from(
    [
        "a",
        "The",
        "U.S.",
        "St.",
        "3",
        ".",
        "5",
        " ",
        " ",
        " ",
        "\n",
        "...",
        "!",
        "?",
        '"',
        "”",
        "。",
        "m",
        "Army",
        ")",
        "(",
        ",",
        "e.g.",
    ]
)


@pytest.mark.parametrize("steps", SHEARS, ids=lambda steps: "+".join(step.rule for step in steps))
@settings(max_examples=200, deadline=None)
@given(beginning=st.lists(PIECES, max_size=14).map("".join), rest=st.lists(PIECES, max_size=8).map("".join))
def test_what_is_settled_is_sheared_the_same_however_the_text_goes_on(steps, beginning, rest):
    if is_settled(beginning, [steps]):
        assert sheared(beginning, steps) == sheared(beginning + rest, steps)
