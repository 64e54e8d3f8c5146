"""Text for terminals: columns line up by what a terminal shows, not by the number of characters."""

import pytest
from rich.cells import cell_len

from caploom.common.text import columns, display_width, left, right


@pytest.mark.parametrize(("text", "width"), [("a_b*c|", 6), ("红色", 4), ("🐈", 2), ("e\u0301", 1), ("", 0)])
def test_a_text_is_as_wide_as_a_terminal_shows_it(text, width):
    assert display_width(text) == width
    assert left(text, 8) == text + " " * (8 - width)
    assert right(text, 8) == " " * (8 - width) + text


def test_columns_line_up_whatever_is_in_them():
    lines = columns([["name", "rows", "note"], ["红色的", "1", "x"], ["a__b", "1,000", "🐈"]], words=(0, 2))
    assert lines == ["name     rows  note", "红色的      1  x", "a__b    1,000  🐈"]
    assert [cell_len(line[: line.rindex("  ")]) for line in lines] == [13, 13, 13]
