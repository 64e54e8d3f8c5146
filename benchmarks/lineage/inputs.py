"""A store as a large ablation leaves it: shards, captions, shears, training sets, checkpoints and their measurements.

Plans, fingerprints, tables and training sets are made by the library; images and models are not, since no question
reads them.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.captions import CAPTIONERS
from benchmarks.lineage.recipes import (
    HELD_OUT,
    write_duplicates,
    write_evaluation_pairs,
    write_evaluation_source,
    write_recipe,
)
from benchmarks.lineage.shards import image_path, shard_rows, write_shards
from benchmarks.lineage.writer import Writer
from caploom.config.factory import Factory
from caploom.report.make import CODE_VERSION as REPORT_VERSION
from caploom.storage.store import Plan

EVALUATION_IMAGES = 5_000


@dataclass(frozen=True)
class Inputs:
    """Where the inputs lie: images of the training set, the path of the first, one that is evaluated, a shard."""

    config: Path
    images: list[str]
    path: str
    evaluated: str
    shard: str

    @classmethod
    def read(cls, folder: Path) -> "Inputs":
        """The inputs that `write_inputs` wrote."""
        return cls(folder / "factory.yaml", **json.loads((folder / "inputs.json").read_text(encoding="utf-8")))


def write_inputs(folder: Path, size: int, *, rows: int | None = None) -> None:
    """A finished factory of `size` images, each captioned by four captioners; two training sets of them, measured.

    Its shards have so many rows, or `shard_rows(size)`.
    """
    rows = rows or shard_rows(size)
    (folder / "factory.yaml").write_text(json.dumps(_settings(rows)), encoding="utf-8")  # JSON is YAML
    evaluated = write_evaluation_source(folder, min(EVALUATION_IMAGES, size))
    factory = Factory.from_yaml(folder / "factory.yaml")
    writer = Writer(factory.store)
    shards = list(write_shards(factory, writer, size, rows))
    evaluation = write_evaluation_pairs(factory, writer, evaluated)
    findings = write_duplicates(factory, writer, evaluation.record, shards)
    for recipe in factory.config.expanded_recipes():
        write_recipe(factory, writer, recipe, shards, evaluation, findings)
    measured = [record for record in writer.made if record.address.startswith("retrieval_metrics/")]
    plan = Plan(
        kind="ablation_report",
        code_version=REPORT_VERSION,
        configuration={"factory": "large", "waiting": []},
        inputs=tuple(measured),
    )
    with writer.writing(plan) as draft:
        (draft.folder / "report.md").write_text("# large\n", encoding="utf-8")
    inputs = {
        "images": [shard.images[0] for shard in shards[:: max(1, len(shards) // 5)]],
        "path": image_path(0),
        "evaluated": evaluated[0],
        "shard": shards[0].name,
    }
    (folder / "inputs.json").write_text(json.dumps(inputs), encoding="utf-8")


def _settings(rows: int) -> dict[str, Any]:
    reader = {"reader": "image_captions", "root": "images", "captions": "captions.parquet"}
    return {
        "name": "large",
        "store": "store",
        "training_json": False,
        "shard_size": rows,
        "pairs": reader,
        "captioners": {
            name: {"model": f"example/{name}", "prompt": f"Describe <image> as {name}:"} for name in CAPTIONERS
        },
        "shears": {"first-sentence": ["first_sentence"]},
        "trainers": {"b32": {"model": "ViT-B-32", "steps": 20_000, "batch_size": 1024}},
        "evaluation_sets": {HELD_OUT: {**reader, "captions": f"{HELD_OUT}.parquet"}},
        "recipes": {
            "four-captioners": {"captioners": "all", "shear": "first-sentence"},
            "filtered": {
                "captioners": "all",
                "shear": "first-sentence",
                "filters": [{"min_words": 6}],
                "mix": {"strategy": "raw_probability", "raw_probability": 0.2},
            },
        },
    }
