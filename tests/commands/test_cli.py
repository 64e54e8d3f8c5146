import pytest
from click.testing import CliRunner
from small_factory import settings_of

from caploom.cli import GROUPS, main
from caploom.config.factory import Factory
from caploom.stages.raw_pairs import ingest_shard
from caploom.stages.shards import create_new_shards


@pytest.fixture
def call():
    def run(*arguments):
        return CliRunner().invoke(main, [str(argument) for argument in arguments])

    return run


def test_check_lists_what_a_factory_would_make(call, write_source, write_config):
    result = call("check", write_config(settings_of(write_source(1))))
    assert result.exit_code == 0
    assert "captioner colours: demo:tiny-llava" in result.output
    assert "recipe sheared: colours; shear first; filters none; mix uniform; seed 0" in result.output


def test_a_mistake_is_a_sentence_and_exit_code_2(call, write_source, write_config):
    result = call("check", write_config(settings_of(write_source(1), shard_sise=3)))
    assert result.exit_code == 2
    assert 'did you mean "shard_size"' in result.output
    assert "Traceback" not in result.output


def test_failures_lists_every_failed_row_with_its_reason(call, write_source, write_config):
    config = write_config(settings_of(write_source(2, [{"image": "none.png", "caption": "x"}])))
    factory = Factory.from_yaml(config)
    create_new_shards(factory)
    ingest_shard(factory, "shard-00000")
    result = call("failures", config)
    assert "raw_pairs [shard-00000]\tmissing_image\t" in result.output
    assert "1 failed rows." in result.output


def test_results_say_what_is_not_measured(call, write_source, write_config):
    assert "Not measured yet: raw-only, sheared." in call("results", write_config(settings_of(write_source(1)))).output


def test_the_help_groups_every_command_with_a_whole_sentence(call):
    text = call("--help").output
    assert [line for line in text.splitlines() if line in ("Make:", "Look:", "Ask:", "Give away:")] == [
        "Make:",
        "Look:",
        "Ask:",
        "Give away:",
    ]
    for name in (name for names in GROUPS.values() for name in names):
        assert f"\n  {name} " in text, name
    assert "..." not in text.split("Make:")[1]


@pytest.mark.parametrize("command", ["run", "ui"])
def test_a_factory_is_named_or_lies_in_the_folder(call, command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for arguments, file in ([], "caploom.yaml"), (["mine.yaml"], "mine.yaml"):
        result = call(command, *arguments)
        assert result.exit_code == 2
        assert result.output.strip().endswith(f"{file}: there is no such file; name the factory's YAML.")
        assert len(result.output.strip().splitlines()) == 1


def test_an_unknown_command_is_said(call):
    result = call("rnu")
    assert result.exit_code == 2
    assert "No such command 'rnu'" in result.output
