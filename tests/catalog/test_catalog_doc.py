"""The guide to the catalog: it knows every table, and its questions can be asked."""

import re
from pathlib import Path

import pytest

from caploom.catalog.catalog import open_catalog
from caploom.catalog.query import ask
from caploom.catalog.schema import SHOWN

ROOT = Path(__file__).parents[2]
GUIDE = (ROOT / "docs" / "catalog.md").read_text(encoding="utf-8")
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
COMMANDS = sorted(
    {query for page in PAGES for query in re.findall(r'caploom sql \S+ "(.+?)"', page.read_text(encoding="utf-8"))}
)
(QUESTIONS,) = re.findall(r"```sql\n(.*?)```", GUIDE, flags=re.DOTALL)


def test_it_knows_every_table():
    assert re.findall(r"^\| `(\w+)` \|", GUIDE, flags=re.MULTILINE) == [table.name for table in SHOWN]


@pytest.mark.parametrize("query", [query.strip() for query in QUESTIONS.split(";") if query.strip()])
def test_its_questions_have_answers(asked, query):
    with open_catalog(asked.store) as catalog:
        answer = ask(catalog, asked.store, query)
    empty = "b.text" in query or "damaged" in query or "four-captioners" in query
    assert bool(answer.rows) != empty


def test_the_readme_has_a_query():
    assert any("from metrics" in query for query in COMMANDS)


@pytest.mark.parametrize("query", COMMANDS)
def test_the_queries_of_all_pages_are_answered(asked, query):
    with open_catalog(asked.store) as catalog:
        answer = ask(catalog, asked.store, query)
    assert bool(answer.rows) != ("four-captioners" in query)
