"""`caploom lineage`, `why` and `trace` as a person runs them."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from caploom.cli import main
from caploom.config.factory import Factory


@pytest.fixture(scope="module")
def config(asked: Factory) -> Path:
    return asked.store.root.parent / "factory.yaml"


def run(*arguments: object):
    return CliRunner().invoke(main, [str(each) for each in arguments])


@pytest.mark.parametrize(
    ("arguments", "beginning"),
    [
        (["lineage", "checkpoint/sheared"], "checkpoint [sheared]"),
        (["lineage", "checkpoint/sheared", "--all"], "checkpoint [sheared]"),
        (["lineage", "checkpoint/sheared", "--format", "mermaid"], "flowchart LR"),
        (["lineage", "checkpoint/sheared", "--format", "dot"], "digraph lineage {"),
        (["why", "sheared", "r1_i2t", "--set", "held-out"], "sheared: image to text recall@1"),
        (["trace", "0003.png"], "0003.png  "),
    ],
)
def test_a_question_is_answered(config, arguments, beginning):
    question, *rest = arguments
    result = run(question, config, *rest)
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith(beginning)


@pytest.mark.parametrize(
    ("arguments", "keys"),
    [
        (["lineage", "checkpoint/sheared"], {"root", "nodes", "edges"}),
        (["why", "sheared", "rsum"], {"figures", "training", "training_set"}),
        (["trace", "0003.png"], {"captions", "training_sets", "ranks", "failures"}),
    ],
)
def test_json_is_json(config, arguments, keys):
    question, *rest = arguments
    assert keys <= set(json.loads(run(question, config, *rest, "--json").stdout))


@pytest.mark.parametrize(
    "arguments",
    [["lineage", "checkpoint/nobody"], ["why", "nobody", "rsum"], ["why", "sheared", "x"], ["trace", "x.png"]],
)
def test_a_wrong_name_is_one_sentence_and_exit_code_2(config, arguments):
    question, *rest = arguments
    result = run(question, config, *rest)
    assert result.exit_code == 2
    assert "Traceback" not in result.output and result.stdout == ""
