"""A store as it is after a large ablation: shards, captions, shears, training sets, checkpoints and their measurements.

Plans, fingerprints, tables and training sets are made by the library; images and models are not, for no question reads
them. Nothing is fsynced, which is all that differs from how the library writes an artifact.
"""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from benchmarks.captions import CAPTIONERS, caption_column, raw_caption_column
from caploom.captioning.identity import captioner_fingerprint
from caploom.common.hashing import file_sha256, fingerprint
from caploom.config.factory import Factory
from caploom.config.recipes import Recipe
from caploom.evaluation.evaluation_pairs import CODE_VERSION as EVALUATION_VERSION
from caploom.readers.source_version import source_version
from caploom.report.make import CODE_VERSION as REPORT_VERSION
from caploom.shearing.rule import Context
from caploom.shearing.table import shear_table
from caploom.stages.captions import CODE_VERSION as CAPTIONS_VERSION
from caploom.stages.checkpoint import CODE_VERSION as CHECKPOINT_VERSION
from caploom.stages.duplicates import CODE_VERSION as DUPLICATES_VERSION
from caploom.stages.raw_pairs import CODE_VERSION as PAIRS_VERSION
from caploom.stages.retrieval_metrics import CODE_VERSION as METRICS_VERSION
from caploom.stages.shards import CODE_VERSION as SHARDS_VERSION
from caploom.stages.shards import source_fingerprint
from caploom.stages.sheared import CODE_VERSION as SHEAR_VERSION
from caploom.stages.sheared import shear_fingerprint
from caploom.stages.training_set import CODE_VERSION as MERGE_VERSION
from caploom.stages.training_set import ORDER_SEED
from caploom.storage.manifest import FileRecord, InputRecord, Manifest, RowCount
from caploom.storage.records import (
    CAPTIONS,
    EVALUATION_PAIRS,
    LEAKED_IMAGES,
    NEAR_DUPLICATES,
    PAIRS,
    RANKS,
    SOURCE_ROWS,
    pair_identity,
)
from caploom.storage.store import Plan, Store
from caploom.storage.tables import table_of, write_failures, write_table
from caploom.training.identity import trainer_identity
from caploom.training_set.buckets import Buckets
from caploom.training_set.filter_context import FilterContext, Passes
from caploom.training_set.filters import filters_identity, prepare_filters
from caploom.training_set.order import image_ids
from caploom.training_set.write import write_training_set

SHARD_ROWS = 2_500
EVALUATION_IMAGES = 5_000
HELD_OUT = "held-out"
_FAILED = 1_000  # one image in so many has no caption of a captioner
_BEGUN = datetime(2026, 1, 1, tzinfo=UTC)


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
        told = json.loads((folder / "inputs.json").read_text(encoding="utf-8"))
        return cls(folder / "factory.yaml", told["images"], told["path"], told["evaluated"], told["shard"])


def write_inputs(folder: Path, size: int, *, rows: int | None = None) -> None:
    """A finished factory of `size` images, each captioned by four captioners; two training sets of them, measured.

    Its shards have so many rows, or `shard_rows(size)`.
    """
    rows = rows or shard_rows(size)
    (folder / "factory.yaml").write_text(json.dumps(_settings(rows)), encoding="utf-8")  # JSON is YAML
    evaluated = _write_evaluation_source(folder, min(EVALUATION_IMAGES, size))
    factory = Factory.from_yaml(folder / "factory.yaml")
    writer = _Writer(factory.store)
    shards = list(_shards(factory, writer, size, rows))
    evaluation = _evaluation_pairs(factory, writer, evaluated)
    findings = _duplicates(factory, writer, evaluation.record, shards)
    for recipe in factory.config.expanded_recipes():
        _recipe(factory, writer, recipe, shards, evaluation, findings)
    measured = [each for each in writer.made if each.address.startswith("retrieval_metrics/")]
    plan = Plan(
        kind="ablation_report",
        code_version=REPORT_VERSION,
        configuration={"factory": "large", "waiting": []},
        inputs=tuple(measured),
    )
    with writer.writing(plan) as draft:
        (draft.folder / "report.md").write_text("# large\n", encoding="utf-8")
    told = {
        "images": [shard.images[0] for shard in shards[:: max(1, len(shards) // 5)]],
        "path": image_path(0),
        "evaluated": evaluated[0],
        "shard": shards[0].name,
    }
    (folder / "inputs.json").write_text(json.dumps(told), encoding="utf-8")


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


def image_path(number: int) -> str:
    """The path of an image as the user wrote it."""
    return f"{number // 10_000:05d}/{number:09d}.jpg"


def shard_rows(size: int) -> int:
    """Images of a shard: 2,500, or fewer so that there are four shards."""
    return min(SHARD_ROWS, -(-size // 4))


@dataclass(frozen=True)
class _Shard:
    name: str
    images: list[str]
    pairs: InputRecord
    sheared: dict[str, InputRecord]


class _Draft:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.rows: RowCount | None = None
        self.summary: dict[str, Any] = {}
        self.seeds: dict[str, int] = {}
        self.record: InputRecord


class _Writer:
    """Writes artifacts; each begins two seconds after the one before."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.made: list[InputRecord] = []

    @contextmanager
    def writing(self, plan: Plan) -> Iterator[_Draft]:
        draft = _Draft(self.store.path(plan.address))
        draft.folder.mkdir(parents=True)
        yield draft
        files = {
            path.relative_to(draft.folder).as_posix(): FileRecord(sha256=file_sha256(path), size=path.stat().st_size)
            for path in sorted(draft.folder.rglob("*"))
            if path.is_file()
        }
        started = _BEGUN + timedelta(seconds=2 * len(self.made))
        manifest = Manifest(
            kind=plan.kind,
            address=plan.address,
            fingerprint=plan.fingerprint,
            data_version=fingerprint({name: record.sha256 for name, record in files.items()}),
            code_version=plan.code_version,
            configuration=plan.configuration,
            inputs=list(plan.inputs),
            seeds=draft.seeds,
            rows=draft.rows,
            summary=draft.summary,
            files=files,
            started=started.isoformat(timespec="seconds"),
            seconds=1.5,
        )
        (draft.folder / "manifest.json").write_text(manifest.model_dump_json(indent=2), encoding="utf-8")
        draft.record = InputRecord(address=plan.address, data_version=manifest.data_version)
        self.made.append(draft.record)


def _shards(factory: Factory, writer: _Writer, size: int, rows: int) -> Iterator[_Shard]:
    digests = np.random.default_rng(0)
    raw = raw_caption_column(size, block=rows)
    said = {name: caption_column(size, seed=seed, block=rows) for seed, name in enumerate(CAPTIONERS)}
    for number, start in enumerate(range(0, size, rows)):
        count = min(rows, size - start)
        ids = image_ids(digests.integers(0, 256, (count, 32), dtype=np.uint8))
        images = pa.array([image_path(each) for each in range(start, start + count)])
        name = f"shard-{number:05d}"
        pairs = _pairs(factory, writer, name, ids, images, next(raw), start)
        sheared = {each: _captions(factory, writer, name, each, ids, images, next(said[each]), pairs) for each in said}
        yield _Shard(name, ids.to_pylist(), pairs, sheared)


def _pairs(
    factory: Factory, writer: _Writer, shard: str, ids: pa.Array, images: pa.Array, raw: pa.Array, start: int
) -> InputRecord:
    source = source_fingerprint(factory)
    paths = pc.binary_join_element_wise(pa.scalar("/data/pairs/images"), images, "/")
    numbers = pa.array(range(start + 1, start + len(ids) + 1), pa.int64())
    nothing = pa.nulls(len(ids), pa.string())
    listing = pa.table([numbers, images, raw, paths, nothing, nothing], schema=SOURCE_ROWS)
    content = hashlib.sha256("\n".join(raw.to_pylist()).encode()).hexdigest()[:16]
    configuration = {"shard": shard, "reader": factory.config.pairs.fingerprinted(), "rows": content}
    plan = Plan(kind="shards", name=(source, shard), code_version=SHARDS_VERSION, configuration=configuration)
    with writer.writing(plan) as draft:
        write_table(listing, draft.folder / "rows.parquet")
        draft.summary = {"rows": len(ids)}
    identities = pa.array([pair_identity(*pair) for pair in zip(ids.to_pylist(), raw.to_pylist(), strict=True)])
    pixels = pa.array(np.full(len(ids), 224, np.int32))
    hashes = pa.array(np.zeros(len(ids), np.uint64))  # of plain colours, which are like nothing
    table = pa.table([identities, ids, images, paths, raw, pixels, pixels, numbers, hashes], schema=PAIRS)
    plan = Plan(
        kind="raw_pairs",
        name=(source, shard),
        code_version=PAIRS_VERSION,
        configuration={"shard": shard},
        inputs=(draft.record,),
    )
    with writer.writing(plan) as draft:
        write_table(table, draft.folder / "pairs.parquet")
        write_failures([], draft.folder)
        draft.rows = RowCount(rows_in=len(ids), rows_out=len(ids), rows_failed=0, unit="rows of the source")
        draft.summary = {"pairs": len(ids), "images": len(ids)}
    return draft.record


def _captions(
    factory: Factory,
    writer: _Writer,
    shard: str,
    captioner: str,
    ids: pa.Array,
    images: pa.Array,
    texts: pa.Array,
    pairs: InputRecord,
) -> InputRecord:
    """A captioner's captions of a shard, and the shear of them; the sheared ones' record."""
    settings = factory.config.captioners[captioner]
    identity = captioner_fingerprint(settings)
    offset = CAPTIONERS.index(captioner) * 7
    failed = [each for each in range(len(ids)) if each % _FAILED == offset]
    kept = pa.array([each for each in range(len(ids)) if each % _FAILED != offset])
    count = len(kept)
    table = pa.table(
        [
            ids.take(kept),
            pa.array([captioner] * count),
            pa.array([identity] * count),
            texts.take(kept),
            pc.cast(pc.divide(pc.binary_length(texts.take(kept)), 4), pa.int32()),
            pa.array(["stop"] * count),
            pa.array(np.full(count, 0.1, np.float32)),
            pa.array(np.ones(count, np.int32)),
            pa.nulls(count, pa.string()),
        ],
        schema=CAPTIONS,
    )
    plan = Plan(
        kind="captions",
        name=(captioner, identity, shard),
        code_version=CAPTIONS_VERSION,
        configuration={
            "captioner": captioner,
            "captioner_fingerprint": identity,
            "shard": shard,
            "settings": settings.fingerprinted(),
        },
        inputs=(pairs,),
    )
    with writer.writing(plan) as draft:
        write_table(table, draft.folder / "captions.parquet")
        rows = [_failure(ids[each].as_py(), images[each].as_py()) for each in failed]
        write_failures(rows, draft.folder)
        reasons = {"generation_failed": len(failed)} if failed else {}
        draft.rows = RowCount(rows_in=len(ids), rows_out=count, rows_failed=len(failed), unit="images", reasons=reasons)
    steps = factory.config.shear_steps("first-sentence")
    plan = Plan(
        kind="sheared",
        name=(captioner, shear_fingerprint(steps), shard),
        code_version=SHEAR_VERSION,
        configuration={"captioner": captioner, "steps": [step.model_dump(mode="json") for step in steps]},
        inputs=(draft.record,),
    )
    with writer.writing(plan) as draft:
        sheared = shear_table(table, steps, Context(table["image_id"].to_pylist(), captioner, None, {}, None))
        write_table(sheared, draft.folder / "sheared.parquet")
        draft.rows = RowCount(rows_in=count, rows_out=count, rows_failed=0, unit="captions")
    return draft.record


def _failure(image_id: str, image: str) -> dict[str, Any]:
    detail = f"{image}: the model gave no text."
    return {
        "stage": "captions",
        "key": image_id,
        "image": image,
        "reason": "generation_failed",
        "detail": detail,
        "attempt": 3,
    }


def _duplicates(factory: Factory, writer: _Writer, evaluation: InputRecord, shards: list[_Shard]) -> list[InputRecord]:
    """That no image is in the evaluation set, and none nearly another one."""
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


def _recipe(
    factory: Factory,
    writer: _Writer,
    recipe: Recipe,
    shards: list[_Shard],
    evaluation: "_Evaluation",
    findings: list[InputRecord],
) -> None:
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
    _measurement(writer, recipe, draft.record, evaluation)


def _measurement(writer: _Writer, recipe: Recipe, checkpoint: InputRecord, evaluation: "_Evaluation") -> None:
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


@dataclass(frozen=True)
class _Evaluation:
    """The evaluation set: its artifact, and the identities of its images."""

    record: InputRecord
    images: list[str]


def _write_evaluation_source(folder: Path, count: int) -> list[str]:
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


def _evaluation_pairs(factory: Factory, writer: _Writer, images: list[str]) -> _Evaluation:
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
    return _Evaluation(draft.record, images)
