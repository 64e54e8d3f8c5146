"""`caploom sql`, as a person runs it."""

import csv
import io
import json

import pytest
from asked_factory import NASTY, captioned, merged, write_factory
from click.testing import CliRunner

from caploom.cli import main


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    """A factory with a training set, a caption of which wants to steer the terminal."""
    path = write_factory(tmp_path_factory.mktemp("sql"))
    merged(captioned(path), "sheared")
    return path


def run(config, *arguments):
    return CliRunner().invoke(main, ["sql", str(config), *arguments])


def test_the_answer_is_an_aligned_table(config):
    result = run(config, "select recipe, source, count(*) as captions from training_rows group by all order by source")
    assert result.exit_code == 0
    head, rule, first, second = result.output.splitlines()
    assert head.split() == ["recipe", "source", "captions"]
    assert set(rule) == {"-", " "}
    assert [first.split()[:2], second.split()[:2]] == [["sheared", "colours"], ["sheared", "raw"]]
    assert len(first) == len(head)


def test_the_issues_example_works_before_anything_is_measured(config):
    result = run(config, "select recipe, captioners, shear, r1_i2t from metrics order by 4 desc")
    assert result.exit_code == 0
    assert result.output.split()[:4] == ["recipe", "captioners", "shear", "r1_i2t"]


def test_more_rows_than_are_shown_are_told(config):
    result = run(config, "select image_id from pairs", "--limit", "4")
    assert "... and 11 more rows" in result.output


def test_json_and_csv_have_all_rows_and_whole_values(config):
    query = "select raw_caption, width, started from pairs join manifests using (address) order by row"
    rows = json.loads(run(config, query, "--json", "--limit", "1").output)
    assert len(rows) == 15
    assert rows[0]["raw_caption"] == NASTY
    assert rows[0]["width"] == 16
    assert rows[0]["started"].endswith("+00:00")
    written = list(csv.reader(io.StringIO(run(config, query, "--csv").output)))
    assert written[0] == ["raw_caption", "width", "started"]
    assert [row[0] for row in written[1:]] == [row["raw_caption"] for row in rows]


def test_a_caption_cannot_steer_the_terminal(config):
    result = run(config, "select raw_caption from pairs order by row")
    assert "<script>alert(1)</script> | `a`  [31mred" in result.output
    assert "\x1b" not in result.output
    refused = run(config, "select raw_caption::integer from pairs order by row")
    assert refused.exit_code == 2
    assert "\x1b" not in refused.stderr


def test_tables_are_listed_with_what_they_mean(config):
    result = run(config, "--tables")
    assert "ledger: every caption ever made" in result.output
    assert "the caption, unsheared" in result.output
    columns = json.loads(run(config, "--tables", "--json").output)
    assert {"table": "metrics", "column": "recipe"}.items() <= columns[0].items()


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("select nothing from metrics", "nothing"),
        ("selec 1", "syntax error"),
        ("drop table manifests", "only reads"),
        ("select 1; drop table manifests", "one query"),
        ("copy (select 1) to 'x.csv'", "only reads"),
        ("select * from read_text('/etc/hostname')", "disabled by configuration"),
        ("select * from '/etc/passwd'", "does not exist"),
        ("from nosuchtable", "nosuchtable"),
    ],
)
def test_what_is_refused_ends_in_one_sentence(config, query, said):
    result = run(config, query)
    assert result.exit_code == 2
    assert said in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert "Traceback" not in result.output


def test_a_query_or_the_tables_are_asked_for(config):
    assert "Give a query" in run(config).stderr
    assert "Give a query" in run(config, "select 1", "--tables").stderr
