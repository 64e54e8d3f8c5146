"""The shear rules: pure functions from a text to the span of it that is kept.

A rule takes the text and its own parameters and returns `(start, end)` in characters; a text that is not empty never
becomes empty. A new rule is one function and one line in `RULES`.
"""

import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Annotated, Any

from pydantic import Field, TypeAdapter, ValidationError

Span = tuple[int, int]

# A full stop after one of these does not end a sentence. Lower case, without the stop.
_ABBREVIATIONS = frozenset(
    "mr mrs ms dr prof st sr jr vs etc no fig gen col lt sgt capt rev hon mt ft ave blvd rd inc ltd co corp dept est"
    " approx e.g i.e cf al jan feb mar apr jun jul aug sep sept oct nov dec a.m p.m".split()
)
_STOP = re.compile(r"[.!?]+[\"'”’)\]]*|[。！？]+[」』”’)\]]*|\n+")


def first_sentence(text: str) -> Span:
    """Keep the first sentence: long captions hallucinate towards their end (paper, section on text shearing).

    Knows abbreviations ("St. Peter's"), initials ("U.S.", "J. Smith"), decimals ("3.5"), ellipses that go on in lower
    case, closing quotes, newlines and CJK stops; the released code's `split('.')[0]` cuts all of those in half.
    """
    start = len(text) - len(text.lstrip())
    for match in _STOP.finditer(text, start):
        if _ends_sentence(text, match):
            end = match.end() if not match.group().isspace() else match.start()
            if text[start:end].strip(" .!?\n"):
                return start, end
    return start if start < len(text) else 0, len(text.rstrip()) or len(text)


def _ends_sentence(text: str, match: re.Match[str]) -> bool:
    mark, after = match.group(), text[match.end() :]
    if mark[0] in "。！？\n":
        return True
    if after and not after[0].isspace():
        return False  # "3.5", "www.example.org", "U.S." in its middle
    following = after.lstrip()[:1]
    if not following:
        return True
    if mark.startswith((".", "…")) and (mark.startswith("..") or following.islower()):
        return not following.islower()
    if mark[0] != ".":
        return True
    word = re.search(r"[^\s(\"'“‘]*$", text[: match.start()])
    last = word.group() if word else ""
    if last.lower() in _ABBREVIATIONS or re.fullmatch(r"[^\W\d_]", last):
        return False
    # "the U.S. Army" goes on, "in the U.S. The" does not: an acronym ends a sentence only before a common opener.
    if re.fullmatch(r"(?:[^\W\d_]\.)+[^\W\d_]", last):
        opener = re.match(r"\s*(\w+)", after)
        return bool(opener and opener.group(1) in _OPENERS)
    return True


_OPENERS = frozenset("The A An It This That There He She They In On We His Her Its Their These Those".split())


def max_words(text: str, words: Annotated[int, Field(ge=1)]) -> Span:
    """Keep at most so many words, cut between words."""
    tokens = list(re.finditer(r"\S+", text))
    if not tokens:
        return 0, len(text)
    return tokens[0].start(), tokens[min(words, len(tokens)) - 1].end()


def max_tokens(text: str, tokens: Annotated[int, Field(ge=1)] = 30) -> Span:
    """Keep at most so many tokens of CLIP's tokenizer (the released code's cap is 30), cut between words.

    The first word stays even when it alone is longer, since a caption never becomes empty.
    """
    words = list(re.finditer(r"\S+", text))
    if not words:
        return 0, len(text)
    end, used = words[0].end(), 0
    for word in words:
        used += _clip_tokens(word.group())
        if used > tokens:
            break
        end = word.end()
    return words[0].start(), end


@cache
def _clip_tokenizer() -> Any:
    import open_clip  # heavy: only where tokens are counted

    return open_clip.SimpleTokenizer()


@lru_cache(maxsize=500_000)
def _clip_tokens(word: str) -> int:
    # CLIP's tokenizer splits at white space first, so a text's tokens are the sum of its words'.
    return len(_clip_tokenizer().encode(word))


def _first_sentence_settled(text: str) -> bool:
    end = first_sentence(text)[1]
    if not text[:end].strip(" .!?\n"):
        return False
    # Whether a full stop ends a sentence depends on what follows: one more sign, or behind "U.S." the next word.
    acronym = re.search(r"(?:[^\W\d_]\.){2,}[\"'”’)\]]*$", text[:end])
    return re.match(r"\n|\S|\s+\w+\W" if acronym else r"\n|\s*\S", text[end:]) is not None


def _max_words_settled(text: str, words: int) -> bool:
    return len(text.split()) > words


def _max_tokens_settled(text: str, tokens: int = 30) -> bool:
    words = text.split()
    whole = words if text[-1:].isspace() else words[:-1]  # the last word may go on
    return sum(_clip_tokens(word) for word in whole) > tokens


@dataclass(frozen=True)
class Rule:
    """A registered rule.

    `main_parameter` is what `{rule: value}` in the YAML sets. `settled(text, **parameters)` tells of the beginning of a
    text that, however it goes on, the rule will keep what it keeps now (None: never). `grows` says that what it keeps
    of a beginning is a beginning of what it will keep of more.
    """

    function: Callable[..., Span]
    main_parameter: str = ""
    settled: Callable[..., bool] | None = None
    grows: bool = False


RULES: dict[str, Rule] = {
    "first_sentence": Rule(first_sentence, settled=_first_sentence_settled, grows=True),
    "max_words": Rule(max_words, "words", settled=_max_words_settled, grows=True),
    "max_tokens": Rule(max_tokens, "tokens", settled=_max_tokens_settled),
}


def bind(rule: str, parameters: dict[str, Any]) -> dict[str, Any]:
    """The rule's parameters, checked against its signature and with defaults filled in; raises `ValueError`."""
    signature = inspect.signature(RULES[rule].function)
    known = {name: parameter for name, parameter in signature.parameters.items() if name != "text"}
    for name in parameters:
        if name not in known:
            raise ValueError(f'the rule "{rule}" has no parameter "{name}"; it takes: {", ".join(known) or "none"}')
    bound = {}
    for name, parameter in known.items():
        if name not in parameters and parameter.default is inspect.Parameter.empty:
            raise ValueError(f'the rule "{rule}" needs {name}, as in {{{rule}: 30}}')
        value = parameters.get(name, parameter.default)
        try:
            bound[name] = TypeAdapter(parameter.annotation).validate_python(value, strict=True)
        except ValidationError as error:
            raise ValueError(f'{name} of the rule "{rule}" is {value!r}: {error.errors()[0]["msg"].lower()}') from None
    return bound
