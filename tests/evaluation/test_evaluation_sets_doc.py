import json
import re
from pathlib import Path
from typing import get_args

import pytest
import yaml
from small_factory import settings_of

from caploom.config.factory_config import parse_config
from caploom.evaluation.protocols import PROTOCOLS
from caploom.evaluation.settings import ClassificationSet, RetrievalSettings
from caploom.readers.image_captions import ImageCaptionsReader
from caploom.readers.karpathy import KarpathyReader

PAGE = (Path(__file__).parents[2] / "docs" / "evaluation-sets.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("example", re.findall(r"```yaml\n(.*?)```", PAGE, re.S))
def test_each_example_is_a_valid_part_of_a_factory(example, tmp_path):
    settings = settings_of(tmp_path / "source", **yaml.safe_load(example))
    settings["trainers"] |= {"clip": settings["trainers"]["small"], "clip-finetune": settings["trainers"]["small"]}
    settings["recipes"] = {name: {"trainer": "clip", **recipe} for name, recipe in settings["recipes"].items()}
    settings["shears"] |= {"first": ["first_sentence"]}
    assert parse_config(settings, base=tmp_path, source="the page").evaluation_sets


def test_the_protocols_of_the_page_the_code_and_the_settings_are_the_same():
    allowed = get_args(get_args(RetrievalSettings.model_fields["protocol"].annotation)[0])
    assert list(allowed) == list(PROTOCOLS)
    assert re.findall(r"^\| `((?:coco|flickr30k)-\w+)`", PAGE, re.M) == list(PROTOCOLS)


def test_every_key_is_documented():
    for settings in (KarpathyReader, ClassificationSet):
        for key in settings.model_fields:
            assert f"`{key}`" in PAGE or f"`{key}: " in PAGE


def test_the_json_example_is_read(tmp_path):
    (example,) = re.findall(r"```json\n(.*?)```", PAGE, re.S)
    assert json.loads(example)
    (tmp_path / "c.json").write_text(example)
    rows = list(ImageCaptionsReader(root=tmp_path, captions=tmp_path / "c.json").rows())
    assert [(row.image, row.reason) for row in rows] == [("a.jpg", None), ("a.jpg", None), ("b.jpg", None)]
