import pytest

from caploom.shearing.rules import RULES, first_sentence, max_tokens, max_words
from caploom.shearing.settings import ShearStep
from caploom.shearing.shear import shear_span


def kept(rule, text, **parameters):
    start, end = rule(text, **parameters)
    return text[start:end]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("A dog runs. It is happy.", "A dog runs."),
        ("A dog runs", "A dog runs"),
        ("Is it a dog? Yes.", "Is it a dog?"),
        ("Look out! A dog.", "Look out!"),
        ("A view of St. Peter's Square in Rome. It is big.", "A view of St. Peter's Square in Rome."),
        ("The U.S. Army parades. It rains.", "The U.S. Army parades."),
        ("They live in the U.S. The house is red.", "They live in the U.S."),
        ("A wall 3.5 metres high. It is old.", "A wall 3.5 metres high."),
        ("Mr. Smith and Dr. J. Jones talk. They sit.", "Mr. Smith and Dr. J. Jones talk."),
        ("A cat ... and a dog sit. They rest.", "A cat ... and a dog sit."),
        ("It fades away... Then it is gone.", "It fades away..."),
        ('He says "stop." Then he goes.', 'He says "stop."'),
        ("A dog (wet). A cat.", "A dog (wet)."),
        ("See www.example.org for more. Or not.", "See www.example.org for more."),
        ("A title\nand its text. More.", "A title"),
        ("一只狗在跑。它很高兴。", "一只狗在跑。"),
        ("  A dog. A cat.", "A dog."),
        ("... A dog. A cat.", "... A dog."),
        ("At 5 p.m. the sun sets. It is red.", "At 5 p.m. the sun sets."),
        ("Fruit, e.g. apples, on a plate. Yes.", "Fruit, e.g. apples, on a plate."),
        ("!!!", "!!!"),
        (".", "."),
    ],
)
def test_first_sentence(text, sentence):
    assert kept(first_sentence, text) == sentence


def test_max_words_cuts_between_words():
    assert kept(max_words, " one two  three four", words=3) == "one two  three"
    assert kept(max_words, "one", words=3) == "one"


def test_max_tokens_counts_clip_tokens_and_cuts_between_words():
    import open_clip

    encode = open_clip.SimpleTokenizer().encode
    text = "an extraordinarily photogenic hippopotamus, unquestionably; it's floccinaucinihilipilification 3.5 m"
    for tokens in range(1, 40):
        part = kept(max_tokens, text, tokens=tokens)
        assert text.startswith(part)
        assert text[len(part) :] == "" or text[len(part)] == " "
        assert len(encode(part)) <= tokens or " " not in part
        following = text[: text.find(" ", len(part) + 1)] if " " in text[len(part) + 1 :] else text
        assert part == text or len(encode(following)) > tokens


@pytest.mark.parametrize("rule", list(RULES))
@pytest.mark.parametrize(
    "text", ["a", ".", "?!", "🐶", "🐶🐶 🐶.", "\u202eabc", "NaN", "<b>x</b>", "x" * 5000, "a\nb", "\ta. b"]
)
def test_no_rule_empties_a_text_and_shearing_twice_is_shearing_once(rule, text):
    step = ShearStep.model_validate(rule if rule == "first_sentence" else {rule: 2})
    start, end = shear_span(text, [step])
    once = text[start:end]
    assert once.strip()
    start, end = shear_span(once, [step])
    assert once[start:end] == once


def test_steps_follow_one_another():
    steps = [ShearStep.model_validate(step) for step in ("first_sentence", {"max_words": 2})]
    text = "  A red dog. A cat."
    start, end = shear_span(text, steps)
    assert text[start:end] == "A red"
    assert shear_span(text, []) == (0, len(text))
