"""The truth score, against cases counted by hand."""

import pytest

from caploom.demo.descriptions import with_article
from caploom.demo.truth import CaptionTruth, NothingToScoreError, named_things, score
from caploom.demo.world import THINGS


@pytest.mark.parametrize(
    ("text", "things"),
    [
        ("A dog and a bus are in a meadow.", {"dog", "bus"}),
        ("DOGS, buses, cacti and butterflies!", {"dog", "bus", "cactus", "butterfly"}),
        ("Two ice creams on my bike under a plane", {"ice cream", "bicycle", "airplane"}),
        ("A doghouse, a busy carpet, a category, keyboards and a pineapple", set()),
        ("In the snow with a pancake", set()),
        ("", set()),
    ],
)
def test_named_things_matches_whole_words_in_any_form(text, things):
    assert named_things(text) == things


def test_every_thing_is_found_by_its_name_and_its_plural():
    for thing in THINGS:
        assert named_things(f"There is {with_article(thing.name)}.") == {thing.name}
        assert named_things(f"There are {thing.plural}.") == {thing.name}


def test_score_counts_over_all_things_together():
    truth = {"a": ["dog", "bus", "tulip"], "b": ["cat", "key"], "unasked": ["tree"]}
    texts = {"a": "A dog and a cake. Another dog.", "b": "A cat, a key and a tent."}
    # Present 5, named 5 (dog, cake; cat, key, tent), right 3.
    assert score(texts, truth) == CaptionTruth(named_share=3 / 5, right_share=3 / 5, n=2)


def test_a_text_that_names_nothing_is_not_wrong():
    assert score({"a": "img_0231"}, {"a": ["dog", "cat"]}) == CaptionTruth(0.0, 1.0, 1)


def test_nothing_to_score_is_said_and_not_scored_as_zero():
    with pytest.raises(NothingToScoreError, match="no caption"):
        score({}, {"a": ["dog"]})
    with pytest.raises(NothingToScoreError, match="'b'"):
        score({"b": "a dog"}, {"a": ["dog"]})
