"""What `caploom diff` says of recipes, versions and artifacts."""

import json

import pytest
import yaml
from asked_factory import NASTY, captioned, measured, write_factory
from click.testing import CliRunner

from caploom.cli import main
from caploom.config.factory import Factory
from caploom.config.factory_config import load_config
from caploom.errors import StoreError
from caploom.questions.diff.differences import differences
from caploom.questions.diff.text import differences_markdown, differences_text

RECIPES = {
    "raw-only": {"captioners": []},
    "whole": {"captioners": "all"},
    "sheared": {"captioners": "all", "shear": "first"},
}


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """Measured; then the shear was edited and the recipe rebuilt."""
    path = write_factory(tmp_path_factory.mktemp("differing"), recipes=RECIPES)
    factory = captioned(path)
    for number, recipe in enumerate(RECIPES):
        measured(factory, recipe, noise=2.0 - 0.7 * number)
    settings = yaml.safe_load(path.read_text())
    settings["shears"]["first"] = [{"max_words": 2}]
    path.write_text(yaml.safe_dump(settings))
    measured(captioned(path), "sheared", noise=0.1)
    return path


@pytest.fixture(scope="module")
def factory(path):
    return Factory.from_config(load_config(path))


@pytest.fixture
def call(path):
    def run(*arguments):
        return CliRunner().invoke(main, ["diff", str(path), *arguments])

    return run


def stage_of(found, kind):
    (stage,) = [each for each in found.stages if each.kind == kind]
    return stage


def test_two_recipes_are_compared_stage_by_stage(factory):
    found = differences(factory, "sheared", "whole")
    assert [stage.kind for stage in found.stages] == [
        "sheared_captions",
        "training_set",
        "checkpoint",
        "retrieval_metrics",
    ]
    sheared = stage_of(found, "sheared_captions")
    assert {change.key for change in sheared.configuration} == {"shear", "rules"}
    assert (sheared.rows.equal, sheared.rows.changed) == (0, 14)
    _, source, mine, theirs = sheared.rows.examples[0]
    assert source == "colours"
    assert theirs.startswith(mine)
    training = stage_of(found, "training_set")
    assert (training.rows.equal, training.rows.changed) == (14, 14)  # the raw captions are the same in both
    assert [change.key for change in stage_of(found, "checkpoint").inputs] == ["training_set"]


def test_recalls_are_compared_query_by_query(factory):
    metrics = stage_of(differences(factory, "sheared", "raw-only"), "retrieval_metrics").metrics
    assert {(each.direction, each.k) for each in metrics} == {
        (direction, k) for direction in ("image_to_text", "text_to_image") for k in (1, 5, 10)
    }
    for each in metrics:
        assert each.difference == pytest.approx(each.first - each.second)
        assert each.interval[0] <= each.difference <= each.interval[1]
    assert any(each.difference > 0 for each in metrics)


def test_a_version_and_the_one_before_it(factory):
    found = differences(factory, "sheared_captions/sheared@1", "sheared_captions/sheared")
    (stage,) = found.stages
    assert [change.key for change in stage.configuration] == ["rules"]
    assert stage.rows.changed == 14
    assert stage.inputs
    with pytest.raises(StoreError, match=r"sheared_captions \[sheared\] has 2 versions, so there is none 2 back"):
        differences(factory, "sheared_captions/sheared@2", "sheared_captions/sheared")


def test_an_artifact_and_itself_do_not_differ(factory):
    (stage,) = differences(factory, "training_set/whole", "training_set [whole]").stages
    assert (stage.same_content, stage.configuration, stage.inputs, stage.rows) == (True, [], [], None)
    assert "the same artifact" in differences_text(differences(factory, "training_set/whole", "training_set [whole]"))


def test_what_is_not_made_yet_is_said(path, factory):
    settings = yaml.safe_load(path.read_text())
    settings["recipes"]["new"] = {"captioners": "all", "mix": {"raw_probability": 0.6}}
    later = path.with_name("later.yaml")
    later.write_text(yaml.safe_dump(settings))
    found = differences(Factory.from_yaml(later), "whole", "new")
    assert found.stages == []
    assert "training_set [new]: not made yet, so not compared." in found.notes


@pytest.mark.parametrize(
    ("first", "second", "said"),
    [
        ("sheared", "sheard", 'did you mean "sheared"'),
        ("training_set/whole", "checkpoint/whole", "two of one kind"),
        ("training_set/wole", "training_set/whole", "did you mean"),
        ("nothing", "of this", 'no artifact "nothing"'),
    ],
)
def test_a_mistake_is_a_sentence(call, first, second, said):
    result = call(first, second)
    assert result.exit_code == 2
    assert said in result.output
    assert len(result.output.strip().splitlines()) == 1


def test_captions_are_text_wherever_they_are_shown(factory, call):
    found = differences(factory, "training_set/raw-only", "training_set/sheared")
    shown = differences_text(differences(factory, "raw_pairs [shard-00000]", "raw_pairs [shard-00001]"))
    assert "\x1b" not in shown + differences_text(found)
    assert "<script>" not in differences_markdown(found)
    assert NASTY


def test_json_has_everything_and_markdown_is_printed(call):
    said = json.loads(call("sheared", "whole", "--json").output)
    assert said["stages"][0]["kind"] == "sheared_captions"
    assert said["stages"][-1]["metrics"][0]["interval"]
    markdown = call("sheared", "whole", "--md").output
    assert markdown.startswith("# sheared and whole")
    assert "| held-out, zero-shot, cosine |" in markdown
