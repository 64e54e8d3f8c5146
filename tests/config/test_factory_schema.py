"""The YAML's JSON Schema admits what the code admits, shorthands included, and refuses what is no key of it."""

import json
import re
from pathlib import Path

import jsonschema
import pytest
import yaml
from click.testing import CliRunner

from caploom.captioning.presets import presets
from caploom.cli import main
from caploom.config.factory_config import FactoryConfig, parse_config
from caploom.config.factory_schema import SCHEMA_FILE, factory_schema, schema_text
from caploom.errors import ConfigError
from caploom.shearing.rules import RULES

ROOT = Path(__file__).parents[2]
FACTORIES = [*sorted((ROOT / "configs").glob("*.yaml")), ROOT / "deploy" / "factory.yaml"]
PAGES = [*sorted((ROOT / "docs").glob("*.md")), ROOT / "README.md"]
LEAST = {"name": "a", "store": "store", "pairs": {"reader": "image_folder", "root": "images"}}


class EditorsLoader(yaml.SafeLoader):
    """Reads YAML 1.2's words, as editors do: `on` and `off` are no booleans."""


EditorsLoader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:bool"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
EditorsLoader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile("^(true|false)$"), list("tf"))


@pytest.fixture(scope="module")
def validator():
    return jsonschema.Draft202012Validator(factory_schema())


def faults(validator, settings):
    return [error.message for error in validator.iter_errors(json.loads(json.dumps(settings)))]


def test_the_file_in_the_package_is_up_to_date():
    command = "python -m caploom.config.factory_schema caploom/config/factory.schema.json"
    assert SCHEMA_FILE.read_text(encoding="utf-8") == schema_text(), f"write it again: {command}"
    jsonschema.Draft202012Validator.check_schema(factory_schema())


def test_the_command_prints_it():
    result = CliRunner().invoke(main, ["schema"])
    assert result.exit_code == 0
    assert json.loads(result.output)["$id"] == "urn:caploom:factory"
    assert result.output == schema_text()


@pytest.mark.parametrize("path", FACTORIES, ids=lambda path: path.stem)
def test_every_factory_of_the_repository_satisfies_it(validator, path):
    assert faults(validator, yaml.safe_load(path.read_text(encoding="utf-8"))) == []


def examples():
    for page in PAGES:
        for number, text in enumerate(re.findall(r"```yaml\n(.*?)```", page.read_text(encoding="utf-8"), re.S), 1):
            if set(yaml.safe_load(text)) <= {*FactoryConfig.model_fields, True}:
                yield pytest.param(text, id=f"{page.stem}-{number}")


def test_most_examples_are_parts_of_factories():
    assert len(list(examples())) >= 20


@pytest.mark.parametrize("text", examples())
def test_every_example_of_the_documentation_satisfies_it(validator, text):
    assert faults(validator, {**LEAST, **yaml.load(text, EditorsLoader)}) == []


MINE = {"mine": {"preset": "smolvlm-256m"}}
TRAINED = {"trainers": {"t": {"model": "ViT-B-32", "steps": 10}}, "captioners": MINE}


def recipe(**keys):
    return {**TRAINED, "shears": {"s": ["first_sentence"]}, "recipes": {"r": {"captioners": "all", **keys}}}


SHORTHANDS = [
    {"executor": "ray"},
    {"executor": {"kind": "ray", "workers": 2}},
    {"duplicates": {"near": False}},
    {"duplicates": {"near": "off"}},
    {"freshness": {"captions": "7d", "checkpoint": {"warn": "1d", "fail": "2w"}}},
    {"alerts": False},
    {"automation": {"retry_failures": False}},
    {"shears": {"s": ["first_sentence", {"max_tokens": 30}, {"max_words": 5}, {"match_raw": 3, "otherwise": 4}]}},
    {"shears": {"s": ["seed_release", {"strip_boilerplate": ["a photo of"]}, {"max_tokens": 30, "tokenizer": "clip"}]}},
    recipe(shear=["first_sentence", {"max_tokens": 30}]),
    recipe(mix="concatenate"),
    recipe(mix="multi_positive"),
    recipe(mix={"raw_probability": 0.2, "sub_caption": True}),
    recipe(mix={"weights": {"raw": 1, "mine": 2}}),
    recipe(filters=["no_empty", {"min_words": 3}, {"language": "en"}, {"language": ["en", "de"]}]),
    recipe(filters=[{"keep_top": 0.3, "model": "ViT-B-32", "pretrained": "openai"}]),
    recipe(trainer="none"),
    {**TRAINED, "grid": {"captioners": "all"}},
    {**TRAINED, "grid": {"captioners": {"subsets": "each"}}},
    {**TRAINED, "grid": {"captioners": [[], ["mine"], "all", {"subsets": "cumulative"}]}},
    {**TRAINED, "grid": {"captioners": [[]], "mixes": {"c": "concatenate"}, "filters": {"f": ["no_empty"]}}},
    {"captioners": {"q": {"preset": "qwen-vl", "url": "http://localhost/v1", "concurrency": 3}}},
    {"captioners": {"q": {"preset": "minigpt-4", "model": "./minigpt-4"}}},
    {"captioners": {"q": {"backend": "openai", "model": "m", "prompt": "p", "url": ["http://a/v1", "http://b/v1"]}}},
    {"captioners": {"q": {"model": "demo:tiny-llava", "prompt": "p", "decoding": {"sample": True}}}},
    {"captioners": {"q": {"backend": "import", "captions": "c.json", "root": "images", "rewrite": {"/a": ""}}}},
    {"mlflow": {"tracking_uri": "./runs", "experiment": "e"}},
]


@pytest.mark.parametrize("part", [*SHORTHANDS, *({"shears": {"s": [name]}} for name in RULES if name != "max_words")])
def test_what_the_code_admits_in_a_short_form_satisfies_it(validator, part):
    settings = {**LEAST, **part}
    try:
        parse_config(settings, base=ROOT, source="a.yaml")
    except ConfigError:  # a rule that needs its parameter
        assert faults(validator, settings) != []
    else:
        assert faults(validator, settings) == []


@pytest.mark.parametrize("name", presets())
def test_every_preset_is_known_to_it(validator, name):
    given = {"minigpt-4": {"model": "./m"}, "otter-original": {"url": "http://a/v1"}, "qwen-vl": {"url": "http://a/v1"}}
    captioner = {"preset": name, **given.get(name, {})}
    assert faults(validator, {**LEAST, "captioners": {"mine": captioner}}) == []
    if name in given:
        assert faults(validator, {**LEAST, "captioners": {"mine": {"preset": name}}}) != []


WRONG = [
    {"shard_sise": 3},
    {"pairs": {"reader": "image_folder", "root": "images", "colour": 1}},
    {"pairs": {"reader": "image_folders", "root": "images"}},
    {"captioners": {"mine": {"preset": "smolvlm"}}},
    {"captioners": {"mine": {"preset": "smolvlm-256m", "promt": "p"}}},
    {"captioners": {"mine": {"model": "m"}}},
    {"captioners": {"a name": {"preset": "smolvlm-256m"}}},
    {"captioners": {"mine": {"preset": "smolvlm-256m", "stops": []}}},
    {"shears": {"s": ["first_sentense"]}},
    {"shears": {"s": [{"max_tokens": "many"}]}},
    {"shears": {"s": ["max_words"]}},
    {"freshness": {"captions": "soon"}},
    {"executor": "cluster"},
    recipe(mix="weights"),
    recipe(mix={"raw_probability": 2}),
    recipe(filters=["min_words"]),
    recipe(filters=[{"min_wrds": 2}]),
    recipe(colour="red"),
    {"trainers": {"t": {"model": "ViT-B-32"}}},
]


@pytest.mark.parametrize("part", WRONG)
def test_what_the_code_refuses_it_refuses_too(validator, part):
    settings = {**LEAST, **part}
    with pytest.raises(ConfigError):
        parse_config(settings, base=ROOT, source="a.yaml")
    assert faults(validator, settings) != []
