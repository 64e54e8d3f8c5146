"""The shear rules by the names that the YAML knows. A new rule is one function and one line here.

A rule takes the text and its own parameters and returns the span `(start, end)` that is kept, in characters; a text
that is not blank never becomes blank, and shearing is idempotent.
"""

from caploom.shearing import sentence_columns
from caploom.shearing.lengths import (
    match_corpus,
    match_corpus_column,
    match_raw,
    match_raw_column,
    max_words,
    max_words_column,
    max_words_settled,
)
from caploom.shearing.phrases import drop_repeats, strip_boilerplate
from caploom.shearing.rule import Rule, Span
from caploom.shearing.sentences import first_sentence, first_sentence_settled, random_sentence, sentences
from caploom.shearing.spans import Spans
from caploom.shearing.tokens import (
    max_tokens,
    max_tokens_column,
    max_tokens_settled,
    paper_release,
    paper_release_column,
)


def none(text: str) -> Span:
    """Keep the whole text: the baseline for shearing."""
    return 0, len(text)


def _same(spans: Spans, context: object) -> Spans:
    return spans


RAW_WORDS = "raw_words"
"""In `Rule.needs`: the length of the image's own raw caption."""
CORPUS_WORDS = "corpus_words"
"""In `Rule.needs`: the length of raw captions in general."""

RULES: dict[str, Rule] = {
    "first_sentence": Rule(
        first_sentence, column=sentence_columns.first_sentence, settled=first_sentence_settled, grows=True
    ),
    "max_tokens": Rule(max_tokens, "tokens", column=max_tokens_column, settled=max_tokens_settled, caps=True),
    "max_words": Rule(max_words, "words", column=max_words_column, settled=max_words_settled, grows=True, caps=True),
    "match_raw": Rule(
        match_raw,
        "floor",
        column=match_raw_column,
        caps=True,
        needs=frozenset({RAW_WORDS}),
        added=frozenset({"otherwise"}),
    ),
    "match_corpus": Rule(
        match_corpus,
        "length",
        column=match_corpus_column,
        caps=True,
        needs=frozenset({CORPUS_WORDS}),
        added=frozenset({"otherwise"}),
    ),
    "strip_boilerplate": Rule(strip_boilerplate, "phrases"),
    "drop_repeats": Rule(drop_repeats, "times"),
    "sentences": Rule(sentences, "count", column=sentence_columns.count_sentences),
    "random_sentence": Rule(random_sentence, "seed", column=sentence_columns.random_sentence),
    "none": Rule(none, column=_same),
    "paper_release": Rule(paper_release, "tokens", column=paper_release_column, caps=True),
}

OLD_NAMES = {"seed_release": "paper_release"}
"""The former names of rules: YAMLs may still use them, and stores record them."""
