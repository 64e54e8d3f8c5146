"""Numbers, times and untrusted text in readable form, for terminals and Markdown."""

import html
import json
from collections.abc import Container, Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

_LONGEST = 160
"""Characters of a configuration's short description."""
_LONGEST_VALUE = 100
"""Characters of a quoted value."""

TIME_FORMAT = "%Y-%m-%d %H:%M:%S"


def terminal_text(text: str) -> str:
    """Text that cannot control a terminal: anything but letters, marks, digits, punctuation and spaces is escaped."""
    return printable("".join(" " if each.isspace() else each for each in text))


def markdown_line(text: str) -> str:
    """The same for Markdown, where it is not markup either."""
    return markdown_text(terminal_text(text))


def printable(text: str) -> str:
    """Any text on one line, with unprintable characters escaped, so that no terminal takes it for a command."""
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


def quoted(value: Any) -> str:
    """A JSON value (or another value's `str`), printable and shortened."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return printable(text if len(text) <= _LONGEST_VALUE else f"{text[:_LONGEST_VALUE]}...")


def shortened(text: str, longest: int = _LONGEST) -> str:
    """Text cut at `longest` characters, with an ellipsis where it is cut."""
    return text if len(text) <= longest else f"{text[: longest - 3].rstrip()}..."


def first_line(error: BaseException) -> str:
    """The first line of an error's message; the error's kind when it has none."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def seconds_text(seconds: float) -> str:
    """`0.3 s`, `43.6 s`, `12 min 5 s`, `3 h 20 min`."""
    if seconds < 100:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 100:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def time_text(timestamp: float) -> str:
    """A moment (seconds since 1970) as `2026-11-23 03:31:38` in UTC, without naming the zone."""
    return datetime.fromtimestamp(timestamp, UTC).strftime(TIME_FORMAT)


def counted(number: int, unit: str) -> str:
    """`1,000 shards`, `1 shard`."""
    return f"{number:,} {unit[:-1] if number == 1 and unit.endswith('s') else unit}"


def markdown_text(text: str) -> str:
    """Any text as plain text inside a Markdown table: no markup, no HTML, no line break, no cell border of its own."""
    escaped = html.escape(" ".join(text.split()), quote=False)
    return "".join(f"\\{character}" if character in "\\`*_[]|~#!<>" else character for character in escaped)


def decimal(value: float | None) -> str:
    """A figure with one decimal; "-" where there is none."""
    return "-" if value is None else f"{value:.1f}"


def percentage(share: float | None) -> str:
    """A share, 0 to 1, as `12.5 %`; "-" where there is none."""
    return "-" if share is None else f"{100 * share:.1f} %"


def display_width(text: str) -> int:
    """How many columns of a terminal a text takes: two for a Chinese character or an emoji, none for an accent."""
    if text.isascii():
        return len(text)
    from rich.cells import cell_len

    return cell_len(text)


def left(text: str, width: int) -> str:
    """A text at the left of a terminal's columns, as `str.ljust` of characters."""
    return text + " " * (width - display_width(text))


def right(text: str, width: int) -> str:
    """A text at the right of a terminal's columns, as `str.rjust` of characters."""
    return " " * (width - display_width(text)) + text


def columns(rows: Sequence[Sequence[str]], words: Container[int]) -> list[str]:
    """Rows of cells as lines for a terminal: the columns at these places are words, to the left, the others numbers."""
    widths = [max(map(display_width, column)) for column in zip(*rows, strict=True)]
    aligns = [left if place in words else right for place in range(len(widths))]
    lines = (zip(aligns, row, widths, strict=True) for row in rows)
    return ["  ".join(align(cell, width) for align, cell, width in line).rstrip() for line in lines]


def markdown_rows(head: Sequence[str], rows: Iterable[Iterable[str]]) -> list[str]:
    """The lines of a Markdown table; the cells are Markdown."""
    return [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows)]
