"""The guide to training says what the code takes."""

import re
from pathlib import Path

import yaml

from caploom.config.factory_config import parse_config
from caploom.training.settings import BlipTrainerSettings, ClipTrainerSettings

GUIDE = Path(__file__).parents[2] / "docs" / "training.md"


def test_the_guide_s_trainers_and_recipes_load(tmp_path: Path) -> None:
    block = re.findall(r"```yaml\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.S)[0]
    reader = {"reader": "image_captions", "root": "images", "captions": "captions.json"}
    written = {"name": "guide", "store": "store", "pairs": reader, "evaluation_sets": {"same": reader}}
    config = parse_config({**written, **yaml.safe_load(block)}, base=tmp_path, source="guide")
    assert isinstance(config.trainers["clip-b32"], ClipTrainerSettings)
    assert isinstance(config.trainers["blip"], BlipTrainerSettings)
    assert config.recipe("raw-only-then-coco").finetune is not None


def test_the_guide_names_every_setting_or_its_default_goes_without_saying() -> None:
    text = GUIDE.read_text(encoding="utf-8")
    unsaid = {"betas", "grad_clip_norm", "device", "momentum", "kind"}
    for settings in (ClipTrainerSettings, BlipTrainerSettings):
        assert {name for name in settings.model_fields if name not in text} <= unsaid
