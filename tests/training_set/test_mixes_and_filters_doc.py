"""The guide's YAML is a YAML that loads, and its tables have every mix and filter."""

import re
from pathlib import Path

import pytest
import yaml
from small_factory import settings_of

from caploom.config.factory_config import load_config
from caploom.training_set.filters import FILTERS
from caploom.training_set.mixes import MIXES

GUIDE = (Path(__file__).parents[2] / "docs" / "mixes-and-filters.md").read_text(encoding="utf-8")


def test_the_guides_recipes_load(write_source, write_config):
    (block,) = re.findall(r"```yaml\n(.*?)```", GUIDE, re.DOTALL)
    captioner = {"model": "demo:tiny-llava", "prompt": "Describe <image>:"}
    written = yaml.safe_load(block) | {
        "captioners": {"llava": captioner, "blip2": captioner},
        "shears": {"paper": ["first_sentence"]},
    }
    config = load_config(write_config(settings_of(write_source(1), **written)))
    assert [step.filter for step in config.recipe("filtered").filters] == [
        "no_empty",
        "min_words",
        "language",
        "max_repeats",
        "near_duplicates",
        "keep_top",
    ]


@pytest.mark.parametrize("name", [*MIXES, *FILTERS])
def test_the_guides_tables_have_every_mix_and_filter(name):
    assert re.search(rf"^\| `\{{?{name}\b", GUIDE, re.MULTILINE)
