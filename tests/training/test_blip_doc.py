"""The guide to BLIP says what the code takes."""

import json
import re
from pathlib import Path

import yaml
from small_factory import settings_of

from caploom.config.factory_config import parse_config
from caploom.training.settings import BlipTrainerSettings, TrainingSettings

GUIDE = (Path(__file__).parents[2] / "docs" / "blip.md").read_text(encoding="utf-8")


def test_the_guide_s_example_is_a_valid_part_of_a_factory(tmp_path: Path) -> None:
    example = yaml.safe_load(re.findall(r"```yaml\n(.*?)```", GUIDE, re.S)[0])
    settings = settings_of(tmp_path / "source")
    settings["trainers"] |= example["trainers"]
    settings["recipes"] = {name: {"trainer": "small", **recipe} for name, recipe in settings["recipes"].items()}
    settings["recipes"] |= example["recipes"]
    config = parse_config(settings, base=tmp_path, source="the guide")
    assert all(isinstance(config.trainers[name], BlipTrainerSettings) for name in example["trainers"])


def test_the_guide_has_every_setting_that_is_blip_s_alone() -> None:
    for name in BlipTrainerSettings.model_fields.keys() - TrainingSettings.model_fields.keys():
        assert re.search(rf"\b{name}\b", GUIDE), name


def test_the_guide_has_every_key_of_an_architecture() -> None:
    architectures = Path(__file__).parents[2] / "caploom" / "training" / "architectures"
    for key in json.loads((architectures / "blip-picture-book.json").read_text()):
        assert f"`{key}`" in GUIDE, key
