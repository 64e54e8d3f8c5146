"""Where a sentence ends, and the rules that keep sentences: the scalar forms, to which the vector forms are equal."""

import hashlib
import re
from collections.abc import Iterator
from typing import Annotated

from pydantic import Field

from caploom.shearing.rule import Row, Span

TITLES = frozenset(
    "mr mrs ms dr prof st gen col lt sgt capt rev hon mt vs no fig cf e.g i.e approx ca vol pp messrs mme mlle".split()
)
"""A full stop after one of these never ends a sentence. Lower case, without the stop."""

MAY_END = frozenset(
    "sr jr etc al ft ave blvd rd inc ltd co corp dept est a.m p.m ph.d b.a m.a b.c a.d"
    " jan feb mar apr jun jul aug sep sept oct nov dec lb lbs oz cm mm km kg sq".split()
)
"""A full stop after one of these ends a sentence only before a word that commonly opens one."""

OPENERS = frozenset(
    "The A An It This That There He She They In On We His Her Its Their These Those I You At Behind Some Two".split()
)

_CLOSING = "\"'”’»)\\]"
_ALWAYS = "。！？｡।॥؟۔።"  # their scripts have no abbreviations with these stops
_BREAKS = "\n\r\u2028\u2029"
_STOP = re.compile(rf"[.!?…]+[{_CLOSING}]*|[{_ALWAYS}]+[」』”’)\]]*|[{_BREAKS}]+")
_CONTENT = re.compile(rf"[^\s.!?…{_ALWAYS}\"'“”‘’()\[\]]")
_BLANKS = re.compile(r"\s*")
_NEXT = re.compile(r"\s*(\S?)")
_WORD_BEFORE = re.compile(r"[^\s(\"'“‘\[]*$")
_LONGEST_LOOK_BACK = 32  # characters: longer than any abbreviation
_LETTER = re.compile(r"[^\W\d_]")
_ACRONYM = re.compile(r"(?:[^\W\d_]\.)+[^\W\d_]")
# "J. A. Smith": the "A" is itself an initial and opens no sentence.
_OPENING = re.compile(r"\s*(\w+)\b(?!\.)")
_WHOLE_WORD_FOLLOWS = re.compile(r"\s+\w+\W")
_SIGN_FOLLOWS = re.compile(rf"[{_BREAKS}]|\s*\S")


def first_sentence(text: str) -> Span:
    """Keep the first sentence: long captions hallucinate towards their end (paper, section on text shearing).

    Knows abbreviations ("St. Peter's"), initials ("U.S.", "J. Smith"), decimals ("3.5"), ellipses that go on in lower
    case, closing quotes, newlines, and the stops of CJK, Arabic and Indic scripts; the released code's `split('.')[0]`
    cuts all of those in half.
    """
    return next(_sentences(text), (0, len(text)))


def sentences(text: str, count: Annotated[int, Field(ge=1)]) -> Span:
    """Keep the first `count` sentences: the long-caption methods (DreamLIP) train on more than one."""
    start, end = 0, len(text)
    for number, span in zip(range(count), _sentences(text), strict=False):
        start, end = span[0] if number == 0 else start, span[1]
    return start, end


def random_sentence(text: str, seed: int = 0, *, row: Row) -> Span:
    """Keep one sentence drawn by image, captioner and seed: DreamLIP's sub-captions, so that the whole text is used."""
    spans = list(_sentences(text))
    return spans[draw(row.image_id, row.captioner, seed, len(spans))] if spans else (0, len(text))


def draw(image_id: str, captioner: str, seed: int, count: int) -> int:
    """A number below `count`, the same on every machine for the same image, captioner and seed."""
    digest = hashlib.blake2b(
        f"{seed}\n{captioner}\n{image_id}".encode("utf-8", "surrogatepass"), digest_size=8
    ).digest()
    return int.from_bytes(digest, "little") % count


def _sentences(text: str) -> Iterator[Span]:
    """The sentences in their order; none of a blank text."""
    start = 0
    while True:
        start = _skip_blanks(text, start)
        if start == len(text):
            return
        end, _ = _sentence_end(text, start)
        yield start, end
        start = end


def _skip_blanks(text: str, start: int) -> int:
    match = _BLANKS.match(text, start)
    return match.end() if match else start


def _sentence_end(text: str, start: int) -> tuple[int, bool]:
    """Where the sentence that begins at `start` ends, and whether that depended on the following word."""
    content = _CONTENT.search(text, start)
    first = content.start() if content else len(text)  # before it there is nothing to keep
    for match in _STOP.finditer(text, first):
        ends, by_word = _ends(text, start, match)
        if ends:
            if match.group()[0] not in _BREAKS:
                return match.end(), by_word
            return start + len(text[start : match.start()].rstrip()), by_word
    return start + len(text[start:].rstrip()), False


def _ends(text: str, start: int, match: re.Match[str]) -> tuple[bool, bool]:
    """Whether this stop ends a sentence, and whether that depends on the following word."""
    mark, end = match.group(), match.end()
    if mark[0] in _ALWAYS or mark[0] in _BREAKS:
        return True, False
    if end < len(text) and not text[end].isspace():
        return False, False  # "3.5", "www.example.org", "U.S." in its middle
    found = _NEXT.match(text, end)
    following = found.group(1) if found else ""
    if not following:
        return True, False
    if mark != "." and not (mark[0] == "." and mark[1] not in ".!?…"):
        # An ellipsis, or a quotation inside a sentence ("Stop!" he says), continues in lower case.
        goes_on = following.islower() and (mark[0] in ".…" or mark[-1] not in "!?")
        return not goes_on, False
    if following.islower():
        return False, False
    before = _WORD_BEFORE.search(text, max(start, match.start() - _LONGEST_LOOK_BACK), match.start())
    word = before.group() if before else ""
    if word.lower() in TITLES:
        return False, False
    if word.lower() in MAY_END or _LETTER.fullmatch(word) or _ACRONYM.fullmatch(word):
        # "the U.S. Army" goes on, "in the U.S. The" does not.
        opening = _OPENING.match(text, end)
        return bool(opening and opening.group(1) in OPENERS), True
    return True, False


def first_sentence_settled(text: str) -> bool:
    """Whether the first sentence is the same for every continuation of the text."""
    start = _skip_blanks(text, 0)
    content = _CONTENT.search(text, start)
    if content is None:
        return False
    end, by_word = _sentence_end(text, start)
    # Whether a stop ends a sentence depends on what follows: one more character, or after "U.S." a whole word.
    return (_WHOLE_WORD_FOLLOWS if by_word else _SIGN_FOLLOWS).match(text, end) is not None
