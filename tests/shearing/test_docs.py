from pathlib import Path

from shear_examples import EXAMPLES

from caploom.shearing.rules import RULES

PAGE = Path(__file__).parents[2] / "docs" / "shearing.md"


def cell(text):
    return text.replace("|", "\\|").replace("\n", "⏎")


def examples_table():
    rows = ["| rule | text | kept |", "|---|---|---|"]
    return "\n".join([*rows, *(f"| `{rule}` | {cell(text)} | {cell(kept)} |" for rule, text, kept in EXAMPLES)])


def test_the_documented_examples_are_the_tested_ones():
    assert examples_table() in PAGE.read_text(encoding="utf-8")


def test_every_rule_is_documented():
    page = PAGE.read_text(encoding="utf-8")
    for rule in RULES:
        assert f"| `{rule}" in page
