"""What recipes are made into: training sets, checkpoints and their measurements on an evaluation set."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.lineage.shards import Shard
from benchmarks.lineage.writer import Writer
from caploom.config.factory import Factory
from caploom.config.recipes import Recipe
from caploom.evaluation.evaluation_pairs import CODE_VERSION as EVALUATION_VERSION
from caploom.readers.source_version import source_version
from caploom.stages.checkpoint import CODE_VERSION as CHECKPOINT_VERSION
from caploom.stages.duplicates import CODE_VERSION as DUPLICATES_VERSION
from caploom.stages.retrieval_metrics import CODE_VERSION as METRICS_VERSION
from caploom.stages.sheared import CODE_VERSION as SHEAR_VERSION
from caploom.stages.training_set import CODE_VERSION as MERGE_VERSION
from caploom.stages.training_set import ORDER_SEED
from caploom.storage.manifest import InputRecord, RowCount
from caploom.storage.records import (
    EVALUATION_PAIRS,
    LEAKED_IMAGES,
    NEAR_DUPLICATES,
    RANKS,
)
from caploom.storage.store import Plan
from caploom.storage.tables import table_of, write_table
from caploom.training.identity import trainer_identity
from caploom.training_set.buckets import Buckets
from caploom.training_set.filter_context import FilterContext, Passes
from caploom.training_set.filters import filters_identity, prepare_filters
from caploom.training_set.order import image_ids
from caploom.training_set.write import write_training_set

HELD_OUT = "held-out"


@dataclass(frozen=True)
class Evaluation:
    """The evaluation set: its artifact, and the identities of its images."""

    record: InputRecord
    images: list[str]


def write_evaluation_source(folder: Path, count: int) -> list[str]:
    """What the YAML says of the evaluation set, without a picture; the identities of its images."""
    (folder / "images").mkdir()
    names = [f"{HELD_OUT}/{number}.jpg" for number in range(count)]
    columns = {
        "image": np.repeat(names, 5),
        "caption": [_held_out_caption(n, of) for n in range(count) for of in range(5)],
    }
    pq.write_table(pa.table(columns), folder / f"{HELD_OUT}.parquet")
    digests = np.random.default_rng(1).integers(0, 256, (count, 32), np.uint8)
    images: list[str] = image_ids(digests).to_pylist()
    return images


def _held_out_caption(number: int, caption: int) -> str:
    return f"{HELD_OUT} caption {caption} of {number}"


def write_evaluation_pairs(factory: Factory, writer: Writer, images: list[str]) -> Evaluation:
    """The evaluation set of images of these identities, with five captions each."""
    rows = [
        {
            "image_id": image_id,
            "image": f"{HELD_OUT}/{number}.jpg",
            "path": f"/data/{HELD_OUT}/{number}.jpg",
            "captions": [_held_out_caption(number, caption) for caption in range(5)],
            "fold": None,
            "phash": 0,
        }
        for number, image_id in enumerate(images)
    ]
    settings = factory.config.evaluation_sets[HELD_OUT]
    plan = Plan(
        kind="evaluation_pairs",
        name=(HELD_OUT,),
        code_version=EVALUATION_VERSION,
        configuration={"source": source_version(settings), "protocol": None},
    )
    with writer.writing(plan) as draft:
        write_table(table_of(rows, EVALUATION_PAIRS), draft.folder / "pairs.parquet")
        draft.rows = RowCount(rows_in=5 * len(rows), rows_out=5 * len(rows), rows_failed=0, unit="rows of the source")
        draft.summary = {"images": len(rows), "captions": 5 * len(rows), "reader": settings.fingerprinted()}
    return Evaluation(draft.record, images)


def write_duplicates(
    factory: Factory, writer: Writer, evaluation: InputRecord, shards: list[Shard]
) -> list[InputRecord]:
    """The finding that no image is in the evaluation set, and the finding that none is nearly another one."""
    settings, pairs = factory.config.duplicates, tuple(shard.pairs for shard in shards)
    leakage = Plan(
        kind="leakage",
        name=(HELD_OUT,),
        code_version=DUPLICATES_VERSION,
        configuration={"distance": settings.leakage_distance},
        inputs=(evaluation, *pairs),
    )
    near = Plan(
        kind="near_duplicates",
        code_version=DUPLICATES_VERSION,
        configuration={"distance": settings.near_distance},
        inputs=pairs,
    )
    found = []
    for plan, schema in ((leakage, LEAKED_IMAGES), (near, NEAR_DUPLICATES)):
        with writer.writing(plan) as draft:
            write_table(table_of([], schema), draft.folder / "images.parquet")
        found.append(draft.record)
    return found


def write_recipe(
    factory: Factory,
    writer: Writer,
    recipe: Recipe,
    shards: list[Shard],
    evaluation: Evaluation,
    findings: list[InputRecord],
) -> None:
    """A recipe's sheared captions, training set, checkpoint and metrics."""
    captioners, store = list(recipe.captioners), factory.store
    tables = [(name, shard.sheared[name]) for name in captioners for shard in shards]
    plan = Plan(
        kind="sheared_captions",
        name=(recipe.base,),
        code_version=SHEAR_VERSION,
        configuration={"captioners": captioners, "shear": recipe.shear},
        inputs=tuple(record for _, record in tables),
    )
    with writer.writing(plan) as draft:
        draft.summary = {
            "captioners": [
                {"captioner": name, "mean_words_before": 30.0, "mean_words_after": 14.0, "share_cut": 0.8}
                for name in captioners
            ]
        }
    plan = Plan(
        kind="training_set",
        name=(recipe.base,),
        code_version=MERGE_VERSION,
        configuration={
            "captioners": captioners,
            "filters": filters_identity(recipe.filters),
            "mix": recipe.mix.model_dump(mode="json"),
            "json": False,
        },
        inputs=(draft.record, *(shard.pairs for shard in shards)),
    )
    with writer.writing(plan) as draft:
        pairs = [store.path(shard.pairs.address) / "pairs.parquet" for shard in shards]
        sheared = [(name, store.path(record.address) / "sheared.parquet") for name, record in tables]
        with Buckets(pairs, sheared, draft.folder, seed=ORDER_SEED) as buckets:
            filters = prepare_filters(
                recipe.filters, Passes(buckets.scan), FilterContext(store, recipe.name, captioners)
            )
            tally = write_training_set(buckets, filters, recipe.mix, draft.folder, json=False)
            draft.rows = tally.row_count(buckets.rows_in)
        duplicates = {"found": {}, "excluded": {}, "examples": [], "artifacts": [each.address for each in findings]}
        draft.seeds, draft.summary = {"order": ORDER_SEED}, {**tally.summary(), "duplicates": duplicates}
    plan = Plan(
        kind="checkpoint",
        name=(recipe.name,),
        code_version=CHECKPOINT_VERSION,
        configuration={"trainer": trainer_identity(recipe.trainer), "seed": recipe.seed},
        inputs=(draft.record,),
    )
    with writer.writing(plan) as draft:
        (draft.folder / "model.safetensors").write_bytes(recipe.name.encode())
        losses = [[step, 5.0 - step / 5_000] for step in range(0, 20_000, 100)]
        draft.summary = {
            "steps": 20_000,
            "samples_seen": 20_480_000,
            "seconds": 7_200.0,
            "final_loss": 1.2,
            "losses": losses,
        }
    _write_measurement(writer, recipe, draft.record, evaluation)


def _write_measurement(writer: Writer, recipe: Recipe, checkpoint: InputRecord, evaluation: Evaluation) -> None:
    """Ranks that are drawn, and the figures that follow from them."""
    rng = np.random.default_rng(len(recipe.name))
    queries = [*evaluation.images, *(f"{image}#{caption}" for image in evaluation.images for caption in range(5))]
    images = len(evaluation.images)
    ranks = np.minimum(rng.geometric(0.2, len(queries)), images).astype(np.int32)
    directions = ["image_to_text"] * images + ["text_to_image"] * 5 * images
    count = len(queries)
    table = pa.table(
        [
            pa.array(directions),
            pa.array(queries),
            pa.array(ranks),
            pa.array(["cosine"] * count),
            pa.nulls(count, pa.int16()),
        ],
        schema=RANKS,
    )
    figures: dict[str, Any] = {}
    for direction, mine in (("image_to_text", ranks[:images]), ("text_to_image", ranks[images:])):
        figures[direction] = {f"recall@{k}": float(np.mean(mine <= k)) for k in (1, 5, 10)}
        figures[direction] |= {f"chance@{k}": k / images for k in (1, 5, 10)}
        figures[direction] |= {"interval@1": [0.1, 0.3], "median_rank": float(np.median(mine))}
    at_1 = [figures[direction]["recall@1"] for direction in figures]
    recalls = [
        figures[direction][f"recall@{k}"] for direction in ("image_to_text", "text_to_image") for k in (1, 5, 10)
    ]
    measured = {
        "stage": "zero-shot",
        "evaluation_set": HELD_OUT,
        "kind": "retrieval",
        "scoring": "cosine",
        "images": images,
        "captions": 5 * images,
        "folds": 1,
        **figures,
        "mean_recall@1": sum(at_1) / 2,
        "mean_chance@1": 1 / images,
        "rsum": 100 * sum(recalls),
        "mean_recall": sum(recalls) / 6,
        "mean_rank_variance": float(np.var(ranks)),
    }
    plan = Plan(
        kind="retrieval_metrics",
        name=(recipe.name,),
        code_version=METRICS_VERSION,
        configuration={"evaluation_sets": [HELD_OUT]},
        inputs=(checkpoint, evaluation.record),
    )
    with writer.writing(plan) as draft:
        out = draft.folder / "zero-shot" / HELD_OUT
        out.mkdir(parents=True)
        write_table(table, out / "ranks.parquet")
        (out / "metrics.json").write_text(json.dumps(measured), encoding="utf-8")
        draft.summary = {"measurements": [measured]}
