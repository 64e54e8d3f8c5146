"""The rules about a captioner's repetitions: its standard openings, and the loop that it ends in."""

import re
from functools import lru_cache
from itertools import product
from typing import Annotated

from pydantic import Field

from caploom.shearing.rule import Span

_NOUNS = (
    "image",
    "picture",
    "photo",
    "photograph",
    "photo in question",
    "scene",
    "painting",
    "illustration",
    "drawing",
)
_VERBS = (
    *("shows", "depicts", "features", "displays", "captures", "contains", "portrays", "presents", "showcases"),
    *("is of", "is a photo of", "is a picture of", "is an image of", "is showing", "seems to show", "appears to show"),
)
BOILERPLATE: list[str] = [
    *(f"{which} {noun} {verb}" for which, noun, verb in product(("the", "this"), _NOUNS, _VERBS)),
    *(
        f"in {which} {noun}{seen}"
        for which, noun, seen in product(
            ("the", "this"),
            _NOUNS,
            ("", " we see", " we can see", " you see", " you can see", " one can see", " there is", " there are"),
        )
    ),
    *(f"{opening} {noun} of" for opening, noun in product(("a", "this is a", "here is a"), _NOUNS) if noun != "image"),
    *(f"{opening} image of" for opening in ("an", "this is an", "here is an")),
    *("an illustration of", "this is an illustration of", "we see", "we can see", "you can see"),
]
"""Openings that say nothing about the picture."""

Phrase = Annotated[str, Field(pattern=r"^\s*\w")]

_WORD = re.compile(r"\S+")
_BETWEEN = r"(?:\s*[,:])?\s+"
_EDGE_PUNCTUATION = re.compile(r"^\W+|\W+$")
_LONGEST_LOOP = 40  # words


def strip_boilerplate(text: str, phrases: Annotated[list[Phrase], Field(min_length=1)] = BOILERPLATE) -> Span:
    """Keep the text after an opening such as "The image shows" or "In this picture, we can see", which says nothing.

    Case is ignored, and a comma may be between the words. The result begins with the following word, its first letter
    unchanged, since a span of the source is kept. A text that is nothing but an opening stays.
    """
    pattern = _openings(tuple(phrases))
    start = len(text) - len(text.lstrip())
    end = len(text.rstrip())
    if start >= end:
        return 0, len(text)
    while match := pattern.match(text, start):
        start = match.end()
    return start, end


def drop_repeats(text: str, times: Annotated[int, Field(ge=2)] = 3) -> Span:
    """Keep a looping tail once ("a dog and a dog and a dog and"): greedy decoding loops until the cap of tokens.

    A tail is a loop when the same words (up to 40) follow one another `times` times; from 6 words on, twice.
    """
    last = text.rsplit(None, 1)[-1:]
    if not last:
        return 0, len(text)
    # Most texts end in a word that occurs in them once.
    if text.casefold().count(_EDGE_PUNCTUATION.sub("", last[0]).casefold() or last[0]) < 2:
        return len(text) - len(text.lstrip()), len(text.rstrip())
    spans = [match.span() for match in _WORD.finditer(text)]
    words = [_EDGE_PUNCTUATION.sub("", text[a:b]).casefold() or text[a:b] for a, b in spans]
    kept = len(words)
    while (shorter := _without_loop(words, kept, times)) < kept:
        kept = shorter
    return spans[0][0], spans[kept - 1][1]


def _without_loop(words: list[str], length: int, times: int) -> int:
    """How many of the first `length` words stay when the loop that they end in, if any, is kept once."""
    shortest = length
    for period in range(1, min(_LONGEST_LOOP, length // 2) + 1):
        at = length - 1
        while at >= period and words[at] == words[at - period]:
            at -= 1
        looping = length - 1 - at
        if looping + period >= period * (2 if period >= 6 else times):
            shortest = min(shortest, length - looping)
    return shortest


@lru_cache(maxsize=16)
def _openings(phrases: tuple[str, ...]) -> re.Pattern[str]:
    """A pattern that matches any of the phrases and what separates it from a following word."""
    tree: dict[str, dict] = {}
    for phrase in phrases:
        branch = tree
        for word in phrase.split():
            branch = branch.setdefault(word.casefold(), {})
        branch[""] = {}
    # There must be a following word, so that no text becomes empty.
    return re.compile(rf"{_branch(tree)}(?!\w)[\s,:;–—-]+(?=\S*\w)", re.IGNORECASE)


def _branch(tree: dict[str, dict]) -> str:
    """The words of a tree as a pattern that tries longer phrases first: common beginnings are matched once."""
    ways = []
    for word in sorted(tree, key=lambda word: (not word, word)):
        rest = tree[word]
        ways.append(re.escape(word) + (_tail(rest) if rest.keys() - {""} or not rest else ""))
    return f"(?:{'|'.join(ways)})"


def _tail(rest: dict[str, dict]) -> str:
    longer = {word: tree for word, tree in rest.items() if word}
    if not longer:
        return ""
    following = _BETWEEN + _branch(longer)
    return f"(?:{following})?" if "" in rest else following
