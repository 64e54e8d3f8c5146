"""The YAML that the pages about new images show is YAML that is accepted."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from caploom.config.factory_config import parse_config

ROOT = Path(__file__).parents[2]
REST: dict[str, Any] = {
    "name": "guide",
    "store": "store",
    "inbox": {"folders": ["inbox"]},
    "trainers": {"tiny": {"model": "picture-book", "steps": 1, "batch_size": 1}},
    "evaluation_sets": {"e": {"reader": "picture_book", "folder": "e", "split": "evaluation", "scenes": 5}},
    "recipes": {"raw-only": {"captioners": []}},
}
PAGES = {"docs/new-images.md": 2, "docs/ingest.md": 2, "docs/alerts.md": 1, "README.md": 1}


@pytest.mark.parametrize("page", PAGES)
def test_every_example_is_accepted(page: str, tmp_path: Path) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    examples = [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)]
    pieces = [each for each in examples if "name" not in each]
    assert len(pieces) == PAGES[page]
    for piece in pieces:
        parse_config({**REST, **piece}, base=tmp_path, source=page)
