"""Values of artifacts as a terminal may show them: captions and file names are anybody's text."""

import json
from typing import Any

_LONGEST = 100  # letters


def quoted(value: Any) -> str:
    """A JSON value (or what `str` makes of another), shortened, without signs that a terminal would obey."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return printable(text if len(text) <= _LONGEST else f"{text[:_LONGEST]}...")


def printable(text: str) -> str:
    """The text with every control sign written out."""
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in text)
