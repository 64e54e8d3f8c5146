"""`init` on URLs: the same forms in object storage give a YAML whose reader reads them there."""

from pathlib import Path

import fsspec
import pytest
from click.testing import CliRunner
from places import FORMS
from test_forms import rows_in

from caploom.cli import main
from caploom.config.factory_config import load_config

SOME = [
    *("photos with texts", "COCO's folder", "COCO's JSON", "CC3M's folder", "CC3M by CRC", "img2dataset's tars"),
    *("a tar", "the hub's Parquet", "LLaVA", "another machine's table"),
]


def upload(folder: Path, url: str) -> None:
    filesystem, path = fsspec.core.url_to_fs(url)
    for file in sorted(folder.rglob("*")):
        if file.is_file():
            filesystem.pipe_file(f"{path}/{file.relative_to(folder)}", file.read_bytes())


@pytest.mark.parametrize("form", SOME)
def test_a_form_is_recognized_in_object_storage(form, s3, tmp_path):
    build, reader = FORMS[form]
    place, rows = build(tmp_path / "data")
    url = f"s3://{s3[1]}/a/data"
    upload(tmp_path / "data", url)
    named = url + str(place).removeprefix(str(tmp_path / "data"))
    arguments = ["init", named, "--out", str(tmp_path / "mine.yaml"), "--captioner", "demo:tiny-llava"]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    assert load_config(tmp_path / "mine.yaml").pairs.reader == reader
    assert rows_in(tmp_path / "mine.yaml") == rows


def test_a_storage_that_refuses_is_one_sentence(s3, tmp_path):
    server, bucket = s3
    server.spoil, server.code = (lambda method, path: 403), "AccessDenied"
    arguments = ["init", f"s3://{bucket}/a", "--out", str(tmp_path / "mine.yaml"), "--captioner", "demo:tiny-llava"]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 2
    assert result.output.startswith(f"s3://{bucket}/a: ")
    assert len(result.output.strip().splitlines()) == 1
