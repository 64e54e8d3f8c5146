"""Every example (`>>>`) in a docstring of the library runs, in a folder that has what the examples name."""

import doctest
import io
import json
import re
import shutil
import tarfile
from collections.abc import Iterator
from hashlib import sha256
from importlib import import_module
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from small_factory import picture

import caploom
from caploom.config.factory import Factory
from caploom.training.clip_model import create_clip_model, save_checkpoint

LIBRARY = Path(caploom.__file__).parent
MODULES = sorted(
    ".".join(["caploom", *path.relative_to(LIBRARY).with_suffix("").parts])
    for path in LIBRARY.rglob("*.py")
    if ">>> " in path.read_text(encoding="utf-8")
)


@pytest.fixture(scope="module")
def folder(asked: Factory, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The examples' working directory: a finished factory's YAML, and one image with a caption in each format."""
    folder = tmp_path_factory.mktemp("examples")
    written = yaml.safe_load((asked.store.root.parent / "factory.yaml").read_text(encoding="utf-8"))
    inbox = {"folders": ["inbox"], "settle_seconds": 0, "gather_seconds": 0}
    (folder / "my.yaml").write_text(yaml.safe_dump(written), encoding="utf-8")
    (folder / "inbox.yaml").write_text(yaml.safe_dump({**written, "store": "store-of-inbox", "inbox": inbox}))
    for name in ("store", "images", "inbox", "measured", "checkpoint"):
        (folder / name).mkdir()
    for name in ("images", "inbox"):
        picture(0).save(folder / name / "cat.png")
        (folder / name / "cat.txt").write_text("A cat.\n", encoding="utf-8")
    write_formats(folder)
    for recipe in ("raw-only", "sheared"):
        [metrics] = asked.store.list("retrieval_metrics", recipe)
        shutil.copy(metrics.file("zero-shot/held-out/ranks.parquet"), folder / f"{recipe}.parquet")
    [pairs] = asked.store.list("evaluation_pairs", "held-out")
    shutil.copy(pairs.file("pairs.parquet"), folder / "pairs.parquet")
    save_checkpoint(create_clip_model("picture-book", seed=0), folder / "checkpoint")
    return folder


def write_formats(folder: Path) -> None:
    """The image's caption as a table, as COCO and Karpathy have it, in a tar and in Parquet."""
    image = (folder / "images" / "cat.png").read_bytes()
    karpathy = {"filename": "cat.png", "filepath": "images", "split": "test", "sentences": [{"raw": "A cat."}]}
    files: dict[str, Any] = {
        "captions.json": [{"image": "cat.png", "caption": "A cat."}],
        "coco.json": {
            "images": [{"id": 1, "file_name": "cat.png"}],
            "annotations": [{"id": 1, "image_id": 1, "caption": "A cat."}],
        },
        "karpathy.json": {"dataset": "own", "images": [karpathy]},
    }
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content), encoding="utf-8")
    with tarfile.open(folder / "cats.tar", "w") as tar:
        for name, data in {"cat.png": image, "cat.txt": b"A cat."}.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    pq.write_table(pa.table({"image": [image], "caption": ["A cat."]}), folder / "cats.parquet")


class Checker(doctest.OutputChecker):
    """Takes any fingerprint for any other: they depend on the folder in which the factory lies."""

    def check_output(self, want: str, got: str, optionflags: int) -> bool:
        wanted, found = (re.sub(r"\b[0-9a-f]{16}\b", "<fingerprint>", text) for text in (want, got))
        return super().check_output(wanted, found, optionflags)


def examples(module: str) -> Iterator[doctest.DocTest]:
    return (test for test in doctest.DocTestFinder().find(import_module(module)) if test.examples)


@pytest.mark.parametrize("module", MODULES)
def test_the_examples_of_a_module_say_what_happens(
    module: str, folder: Path, asked: Factory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    [training_set] = asked.store.list("training_set", "sheared")
    factory = caploom.Factory.from_yaml("my.yaml")  # the same one
    names = {"Path": Path, "sha256": sha256, "Factory": Factory, "factory": factory, "training_set": training_set}
    runner = doctest.DocTestRunner(Checker(), optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    report: list[str] = []
    for test in examples(module):
        test.globs |= names
        runner.run(test, out=report.append)
    assert runner.tries > 0
    assert not runner.failures, "".join(report)


def test_what_people_call_first_has_an_example() -> None:
    assert {"caploom.config.factory", "caploom.catalog.query", "caploom.exports.export"} < set(MODULES)
