"""The scalar rules: what they keep, and what must hold of any text."""

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st
from nasty_texts import NASTY, TEXTS
from shear_examples import CORPUS_WORDS, EXAMPLES, RAW_WORDS

from caploom.common.settings import _warn_renamed
from caploom.errors import ConfigError
from caploom.shearing.apply import shear_span
from caploom.shearing.rule import Row
from caploom.shearing.rules import RULES, first_sentence, max_tokens, max_words
from caploom.shearing.settings import ShearStep
from caploom.shearing.tokens import clip_count, is_tame

ROW = Row("image", "captioner", RAW_WORDS, {"mean": CORPUS_WORDS, "75": 2}, lambda text: len(text) // 2)
STEPS = [
    "first_sentence",
    {"max_tokens": 3},
    {"max_tokens": 5, "tokenizer": "captioner"},
    {"max_words": 2},
    "match_raw",
    {"match_corpus": 75},
    "strip_boilerplate",
    "drop_repeats",
    {"sentences": 2},
    "random_sentence",
    "none",
    {"paper_release": 4},
]
SHEARS = [[step] for step in STEPS] + [["strip_boilerplate", "first_sentence", {"max_tokens": 30, "tokenizer": "clip"}]]


def kept(rule, text, **parameters):
    start, end = rule(text, **parameters)
    return text[start:end]


def sheared(text, steps, row=ROW):
    start, end = shear_span(text, [ShearStep.model_validate(step) for step in steps], row)
    return text[start:end]


@pytest.mark.parametrize(("rule", "text", "expected"), EXAMPLES)
def test_examples(rule, text, expected):
    assert sheared(text, [yaml.safe_load(rule)]) == expected


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("A dog runs", "A dog runs"),
        ("Is it a dog? Yes.", "Is it a dog?"),
        ("Look out! A dog.", "Look out!"),
        ("Really?! A dog.", "Really?!"),
        ("It fades away... Then it is gone.", "It fades away..."),
        ("It fades away… Then it is gone.", "It fades away…"),
        ("A cat … and a dog. They rest.", "A cat … and a dog."),
        ('He says "stop." Then he goes.', 'He says "stop."'),
        ("He says “stop.” Then he goes.", "He says “stop.”"),
        ("A dog (wet). A cat.", "A dog (wet)."),
        ("A dog (it is wet.) A cat.", "A dog (it is wet.)"),
        ("See www.example.org for more. Or not.", "See www.example.org for more."),
        ("  A dog. A cat.", "A dog."),
        ("... A dog. A cat.", "... A dog."),
        ("At 5 p.m. the sun sets. It is red.", "At 5 p.m. the sun sets."),
        ("It is 5 p.m. The sun sets.", "It is 5 p.m."),
        ("Fruit, e.g. apples, on a plate. Yes.", "Fruit, e.g. apples, on a plate."),
        ("Apples, pears, etc. The plate is red.", "Apples, pears, etc."),
        ("Apples, pears, etc., on a plate. Yes.", "Apples, pears, etc., on a plate."),
        ("J. A. Smith reads. He sits.", "J. A. Smith reads."),
        ("A poster of J.R.R. Tolkien hangs there. It is old.", "A poster of J.R.R. Tolkien hangs there."),
        ("A sign of Apple Inc. hangs there. It is old.", "A sign of Apple Inc. hangs there."),
        ("The No. 7 bus waits. It is red.", "The No. 7 bus waits."),
        ("A Ph.D. student reads. She sits.", "A Ph.D. student reads."),
        ("Batman vs. Superman fight. It rains.", "Batman vs. Superman fight."),
        ("A plan B. The end.", "A plan B."),
        ("A café. It is old.", "A café."),
        ("Un élève lit. Il pleut.", "Un élève lit."),
        ("A dog in 2020. It is old.", "A dog in 2020."),
        ("A state-of-the-art. It is.", "A state-of-the-art."),
        ("Two dogs\r\n\r\nThey run.", "Two dogs"),
        ("Two dogs \nThey run.", "Two dogs"),
        ("يجلس الرجل؟ نعم.", "يجلس الرجل؟"),
        ("एक कुत्ता दौड़ता है। वह खुश है।", "एक कुत्ता दौड़ता है।"),
        ("犬だ！猫だ。", "犬だ！"),
        ("A dog 🐶. A cat.", "A dog 🐶."),
        ("!!!", "!!!"),
        (".", "."),
        ("NaN", "NaN"),
        ("<b>A dog.</b> A cat.", "<b>A dog.</b> A cat."),
    ],
)
def test_first_sentence(text, sentence):
    assert kept(first_sentence, text) == sentence


@pytest.mark.parametrize(
    ("text", "rest"),
    [
        ("THE IMAGE SHOWS A DOG.", "A DOG."),
        ("This is a picture of a dog.", "a dog."),
        ("The image depicts: a dog.", "a dog."),
        ("In the image there is a dog.", "a dog."),
        ("The photo shows a painting of a dog.", "a painting of a dog."),
        ("The image features a photo of a dog.", "a dog."),
        ("The image shows", "The image shows"),
        ("The image shows.", "The image shows."),
        ("The images shows a dog", "The images shows a dog"),
        ("The image shown here", "The image shown here"),
        ("In this picture", "In this picture"),
        ("In this picture, Élodie lacht.", "Élodie lacht."),
        ("A photography studio", "A photography studio"),
        ("A dog. The image shows a cat.", "A dog. The image shows a cat."),
    ],
)
def test_strip_boilerplate(text, rest):
    if text.startswith("The photo shows a painting"):
        rest = "a dog."  # an opening behind an opening
    assert sheared(text, ["strip_boilerplate"]) == rest


def test_strip_boilerplate_takes_phrases_of_the_yaml_s_own():
    assert sheared("Hier sieht man einen Hund.", [{"strip_boilerplate": ["hier sieht man"]}]) == "einen Hund."
    assert sheared("The image shows a dog.", [{"strip_boilerplate": ["hier sieht man"]}]) == "The image shows a dog."


@pytest.mark.parametrize(
    ("text", "once"),
    [
        ("A dog. A dog. A dog.", "A dog."),
        ("no no no no", "no"),
        ("A very very good dog", "A very very good dog"),
        ("He sits on the red chair now. He sits on the red chair now.", "He sits on the red chair now."),
        ("a dog, a cat, a dog, a cat", "a dog, a cat, a dog, a cat"),  # twice is no loop of so few words
        ("one two three", "one two three"),
    ],
)
def test_drop_repeats(text, once):
    assert sheared(text, ["drop_repeats"]) == once


def test_max_words_cuts_between_words():
    assert kept(max_words, " one two  three four", words=3) == "one two  three"
    assert kept(max_words, "one", words=3) == "one"


def test_max_tokens_counts_clip_tokens_and_cuts_between_words():
    text = "an extraordinarily photogenic hippopotamus, unquestionably; it's floccinaucinihilipilification 3.5 m"
    for tokens in range(1, 40):
        part = kept(max_tokens, text, tokens=tokens)
        assert text.startswith(part)
        assert text[len(part) :] == "" or text[len(part)] == " "
        assert clip_count(part) <= tokens or " " not in part
        following = text[: text.find(" ", len(part) + 1)] if " " in text[len(part) + 1 :] else text
        assert part == text or clip_count(following) > tokens


@settings(max_examples=300, deadline=None)
@given(text=TEXTS, tokens=st.integers(1, 12))
@example(text=" Ã a", tokens=2)
def test_max_tokens_is_as_long_as_clip_s_tokenizer_allows(text, tokens):
    part = kept(max_tokens, text, tokens=tokens)
    rest = text[text.find(part) + len(part) :]
    words = part.split()
    assert len(words) <= 1 or clip_count(part) <= tokens
    # Mojibake can have fewer tokens with a word more, once that tells how to repair it.
    if rest.strip() and words and is_tame(text):
        longer = text[: len(text) - len(rest) + len(rest) - len(rest.lstrip()) + len(rest.split()[0])]
        assert clip_count(longer.strip()) > tokens


def test_paper_release_keeps_what_the_release_would_empty():
    assert sheared(".5 metres of rope. Yes", ["paper_release"]) == ".5 metres of rope. Yes"
    assert sheared("word " * 50, [{"paper_release": 3}]) == "word word word"


@pytest.mark.parametrize("old", ["seed_release", {"seed_release": 3}])
def test_the_old_name_of_paper_release_is_recorded_as_ever_and_warns(old, caplog):
    _warn_renamed.cache_clear()
    before = ShearStep.model_validate(old)
    new = ShearStep.model_validate("paper_release" if isinstance(old, str) else {"paper_release": 3})
    assert caplog.messages == ['The shear rule "seed_release" is deprecated: write "paper_release", its new name.']
    assert before == new == ShearStep.model_validate(new.model_dump())
    assert new.fingerprinted()["rule"] == "seed_release"  # so that stores made before stay valid
    assert len(caplog.messages) == 1


def test_random_sentence_draws_every_sentence_of_some_image_and_the_same_one_again():
    text = "A dog runs. It is happy. The sun shines."
    drawn = [sheared(text, ["random_sentence"], Row(str(number), "a")) for number in range(50)]
    assert set(drawn) == {"A dog runs.", "It is happy.", "The sun shines."}
    assert drawn == [sheared(text, ["random_sentence"], Row(str(number), "a")) for number in range(50)]
    assert drawn != [sheared(text, [{"random_sentence": 1}], Row(str(number), "a")) for number in range(50)]


def test_match_raw_has_a_floor():
    assert sheared("one two three four five", ["match_raw"], Row(raw_words=1)) == "one two three"
    assert sheared("one two three four five", [{"match_raw": 2}], Row(raw_words=1)) == "one two"


def test_a_rule_that_lacks_what_it_must_know_says_so():
    with pytest.raises(ConfigError, match="match_raw needs the image's raw caption"):
        sheared("one two", ["match_raw"], Row())
    with pytest.raises(ConfigError, match="the captioner's tokenizer"):
        sheared("one two", [{"max_tokens": 3, "tokenizer": "captioner"}], Row())


@pytest.mark.parametrize(
    ("step", "sentence"),
    [
        ({"max_tokens": 3, "tokenizer": "gpt"}, "tokenizer of the rule"),
        ({"max_tokens": True}, "tokens of the rule"),
        ({"match_corpus": "median"}, "length of the rule"),
        ({"match_corpus": 101}, "length of the rule"),
        ({"strip_boilerplate": []}, "phrases of the rule"),
        ({"strip_boilerplate": [3]}, "phrases of the rule"),
        ({"strip_boilerplate": [" "]}, "phrases of the rule"),
        ({"sentences": 0}, "count of the rule"),
        ("sentences", "needs count"),
        ({"drop_repeats": 1}, "times of the rule"),
        ({"random_sentence": "a"}, "seed of the rule"),
        ({"match_raw": 3, "row": 5}, 'has no parameter "row"'),
        ({"none": 1}, "takes no parameter"),
    ],
)
def test_a_wrong_parameter_gets_a_sentence(step, sentence):
    with pytest.raises(ValueError, match=sentence):
        ShearStep.model_validate(step)


@pytest.mark.parametrize("steps", SHEARS, ids=str)
@pytest.mark.parametrize("text", NASTY)
def test_no_shear_empties_a_text_and_shearing_twice_is_shearing_once(steps, text):
    check(text, steps)


@settings(max_examples=150, deadline=None)
@given(text=TEXTS)
def test_no_shear_empties_any_text(text):
    for steps in SHEARS:  # of each drawn text: drawing takes longer than shearing
        check(text, steps)


def check(text, steps):
    once = sheared(text, steps)
    assert bool(once.strip()) == bool(text.strip()), steps
    assert once in text, steps
    assert sheared(once, steps) == once, steps
    if not text.strip():
        assert once == text, steps


def test_steps_follow_one_another():
    assert sheared("  A red dog. A cat.", ["first_sentence", {"max_words": 2}]) == "A red"
    assert shear_span("a b", []) == (0, 3)


def test_every_rule_is_tested():
    named = {step if isinstance(step, str) else next(iter(step)) for step in STEPS}
    assert named == set(RULES)
    assert {rule.partition(":")[0] for rule, _, _ in EXAMPLES} == named
