import re
from pathlib import Path

import yaml
from small_factory import settings_of

from caploom.config.factory_config import parse_config
from caploom.config.grid import GridSettings

GUIDE = (Path(__file__).parents[2] / "docs" / "ablation-grids.md").read_text(encoding="utf-8")
CAPTIONERS = ("llava", "qwen-vl", "otter", "minigpt-4")


def recipes_of(grid, tmp_path):
    settings = settings_of(tmp_path) | {
        "captioners": {name: {"model": "demo:tiny-llava", "prompt": f"{name} <image>:"} for name in CAPTIONERS},
        "shears": {"first-sentence": ["first_sentence"]},
        "recipes": {},
        "grid": grid,
    }
    return parse_config(settings, base=tmp_path, source="the guide").expanded_recipes()


def test_the_guides_grid_is_well_formed_and_names_its_arms_as_the_guide_says(tmp_path):
    (block,) = re.findall(r"```yaml\n(.*?)```", GUIDE, re.DOTALL)
    names = {recipe.name for recipe in recipes_of(yaml.safe_load(block)["grid"], tmp_path)}
    assert len(names) == (2 + 4 * 2 * 2 * 2) * 3
    assert {"raw-only", "llava.first-sentence", "4-captioners.none.mostly-raw", "raw-only.long-seed-1"} <= names


def test_every_key_stands_in_the_guide():
    keys = GUIDE.partition("## Keys")[2].partition("###")[0]
    assert set(re.findall(r"`(\w+)`(?=,| \||: )", keys)) >= set(GridSettings.model_fields)


def test_every_way_to_write_sets_of_captioners_is_allowed(tmp_path):
    section = GUIDE.partition("### Sets of captioners")[2].partition("##")[0]
    written = re.findall(r"^\| `(.*?)` \|", section, re.MULTILINE)
    assert len(written) == 8
    for each in written:
        assert recipes_of({"captioners": [yaml.safe_load(each)]}, tmp_path)
