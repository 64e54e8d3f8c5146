import ast
import re
from pathlib import Path

import pytest
import yaml
from pydantic import TypeAdapter

from caploom.readers.coco import CocoReader
from caploom.readers.image_captions import ImageCaptionsReader
from caploom.readers.image_folder import ImageFolderReader
from caploom.readers.parquet_images import ParquetReader
from caploom.readers.registry import Reader
from caploom.readers.webdataset import WebdatasetReader

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "readers.md").read_text(encoding="utf-8")
MODULES = (
    *("caption_rows", "caption_tables", "coco", "image_captions", "image_folder", "image_names", "karpathy"),
    *("parquet_images", "sidecars", "webdataset"),
)


@pytest.mark.parametrize("example", re.findall(r"```yaml\n(.*?)```", PAGE, re.S))
def test_each_example_names_a_reader_that_takes_its_keys(example):
    pairs = yaml.safe_load(example)["pairs"]
    assert TypeAdapter(Reader).validate_python(pairs).reader == pairs["reader"]


def test_every_key_is_documented():
    for settings in (CocoReader, ImageCaptionsReader, ImageFolderReader, ParquetReader, WebdatasetReader):
        for key in settings.model_fields:
            assert f"`{key}" in PAGE


def reasons_in(module):
    """The reasons that a module's code gives: what `bad_row` is called with, and pairs of a reason and a sentence."""
    for node in ast.walk(ast.parse((ROOT / "caploom" / "readers" / f"{module}.py").read_text())):
        given = []
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "bad_row":
            given = ast.walk(node.args[2]) if len(node.args) > 2 else []
        elif isinstance(node, ast.Tuple) and len(node.elts) == 2:
            given = node.elts[:1]
        for each in given:
            if isinstance(each, ast.Constant) and re.fullmatch(r"[a-z]+(_[a-z0-9]+)+", str(each.value)):
                yield each.value


def test_every_reason_that_these_readers_give_is_explained():
    given = {reason for module in MODULES for reason in reasons_in(module)}
    assert {"svg_not_accepted", "json_ends_early", "not_an_image", "undecodable_text"} <= given
    section = PAGE.partition("## Reasons")[2]
    cells = re.findall(r"^\| (`[^|]*) \|", section, re.M)
    assert given <= {reason for cell in cells for reason in re.findall(r"`(\w+)`", cell)}
