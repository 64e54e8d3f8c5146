"""`caploom try` as a person runs it, with a real captioner."""

import json
from importlib import import_module

import pytest
from click.testing import CliRunner
from small_factory import settings_of

from caploom.captioning.backend import load_backend
from caploom.cli import main
from caploom.config.factory import Factory
from caploom.stages.captions import caption_shard


def run(*arguments):
    return CliRunner().invoke(main, [str(each) for each in arguments])


def test_a_run_after_a_try_asks_only_for_the_rest(write_source, write_config):
    config = write_config(settings_of(write_source(8)))
    tried = run("try", config, "colours", "--images", 3)
    assert tried.exit_code == 0, tried.output
    assert "colours (demo:tiny-llava) on the first 3 images of shard-00000: 3 asked about now in " in tried.stdout
    for number in range(3):
        assert f"\n000{number}.png\n  " in tried.stdout
    assert "  first keeps: " in tried.stdout
    factory = Factory.from_yaml(config)
    page = factory.store.root / "tries" / "colours.html"
    assert tried.stdout.endswith(f"The pictures with these texts: {page}\n")
    assert page.read_text(encoding="utf-8").count("<img src=") == 3

    again = json.loads(run("try", config, "colours", "--images", 3, "--json").stdout)
    assert (again["generated"], again["failed"], len(again["images"])) == (0, 0, 3)
    assert all(f"  {image['text']}\n" in tried.stdout for image in again["images"])
    assert again["images"][0]["kept"].keys() == {"first"}

    settings = factory.config.captioners["colours"]
    made = caption_shard(factory, "colours", "shard-00000", lambda: load_backend(settings, factory.store))
    assert made.manifest.summary["captions"] == 8
    assert made.manifest.summary["generated"] == 5


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["nobody"], 'There is no captioner "nobody"; known: colours.'),
        (["colours", "--images", "0"], "0 is not in the range x>=1"),
    ],
)
def test_a_mistake_is_a_sentence_and_exit_code_2(write_source, write_config, arguments, sentence):
    config = write_config(settings_of(write_source(1)))
    result = run("try", config, *arguments)
    assert result.exit_code == 2
    assert sentence in result.output
    assert "Traceback" not in result.output
    assert not (config.parent / "store" / "shards").exists()


def test_a_captioner_without_its_gpu_is_a_sentence(write_source, write_config):
    if import_module("torch").cuda.is_available():
        pytest.skip("this machine has a GPU")
    settings = settings_of(write_source(1))
    settings["captioners"]["colours"]["device"] = "cuda:7"
    result = run("try", write_config(settings), "colours")
    assert result.exit_code == 2
    assert "demo:tiny-llava: its device is cuda:7, and torch finds no GPU on this machine" in result.output
