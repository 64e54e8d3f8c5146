"""The guide to the catalog: it knows every table, and its questions can be asked."""

import re
from pathlib import Path

import pytest

from caploom.catalog.catalog import open_catalog
from caploom.catalog.query import ask
from caploom.catalog.schema import SHOWN

GUIDE = (Path(__file__).parents[2] / "docs" / "catalog.md").read_text(encoding="utf-8")
(QUESTIONS,) = re.findall(r"```sql\n(.*?)```", GUIDE, flags=re.DOTALL)


def test_it_knows_every_table():
    assert re.findall(r"^\| `(\w+)` \|", GUIDE, flags=re.MULTILINE) == [table.name for table in SHOWN]


@pytest.mark.parametrize("query", [query.strip() for query in QUESTIONS.split(";") if query.strip()])
def test_its_questions_have_answers(asked, query):
    with open_catalog(asked.store) as catalog:
        answer = ask(catalog, asked.store, query)
    empty = "b.text" in query or "damaged" in query or "four-captioners" in query
    assert bool(answer.rows) != empty
