"""Target sets: what a recipe's checkpoint is fine-tuned on, as training rows.

Rows are streamed: COCO's 566,747 training captions need little more memory than a small set's.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from caploom.common.hashing import file_sha256, fingerprint
from caploom.common.progress import Progress
from caploom.config.factory import Factory
from caploom.errors import TrainingError
from caploom.images.decode import ImageFault
from caploom.readers.identified import identified_rows
from caploom.readers.registry import Reader
from caploom.readers.source_version import source_version
from caploom.stages.evaluation_sets import draw, evaluated_images, evaluation_set, refuse_undrawn
from caploom.stages.graph import Graph, graph_of
from caploom.stages.known_set import known_configuration
from caploom.stages.stage import Configuration, Cost, Key, Making, Ref, Stage
from caploom.stages.training_set import ORDER_SEED
from caploom.storage.records import FAILURES, TRAINING_ROWS
from caploom.storage.store import Artifact, Draft
from caploom.storage.tables import count_rows, failure, read_batches, write_failures
from caploom.training_set.buckets import Buckets
from caploom.training_set.mixes import training_rows
from caploom.training_set.row_files import row_files
from caploom.training_set.settings import MixSettings
from caploom.training_set.write import training_files

KIND = "target_set"
CODE_VERSION = "1"
TARGET_SOURCE = "target"
"""What a target set's captions are called where a training set names their captioner."""

_BLOCK_ROWS = 8192
_PAIRS = pa.schema([(name, pa.string()) for name in ("image_id", "image", "path", "raw_caption")])


def target_set(factory: Factory | Graph, name: str) -> Artifact:
    """The target set of that name, made unless it is made: `rows-*.parquet` (schema TRAINING_ROWS), `failures.parquet`.

    An image's row has all its captions, each as likely as the next; images come in a seeded order, as in a training
    set. Raises `TrainingError` when nothing of it can be used, or when it shares images with an evaluation set of a
    recipe that is fine-tuned on it.
    """
    graph = graph_of(factory)
    artifact = graph.make(Ref(KIND, (name,)))
    recipes = [each for each in graph.recipes.values() if each.finetune and each.finetune.target_set == name]
    for evaluated in dict.fromkeys(each for recipe in recipes for each in recipe.evaluation_sets):
        refuse_shared_images(name, artifact, evaluated, evaluation_set(graph, evaluated))
    return artifact


def _build(making: Making, draft: Draft) -> None:
    (name,) = making.ref.key
    reader = making.config.target_sets[name]
    pairs = draft.folder / "pairs.parquet"
    rows_in, failures = _write_pairs(reader, pairs, making.tools.progress)
    images = captions = repeated = 0
    out = row_files(draft.folder)
    with Buckets([pairs], [], draft.folder, seed=ORDER_SEED) as buckets:
        if not buckets.rows_in:
            first = failures[0]["detail"] if failures else "the source has no rows."
            raise TrainingError(f"The target set {name} has no usable row: {first}")
        for bucket in buckets:
            said = pa.array([TARGET_SOURCE] * len(bucket.captions), pa.string())
            place = bucket.captions.schema.get_field_index("source")
            rows = training_rows(bucket.captions.set_column(place, "source", said), MixSettings())
            out.write(rows)
            images, captions, repeated = (
                images + len(rows), captions + len(bucket.captions), repeated + bucket.repeated
            )  # fmt: skip
    out.close()
    pairs.unlink()
    write_failures(failures, draft.folder)
    count = count_rows("rows of the source", rows_in, captions, failures)
    if repeated:
        count.reasons["repeated_caption"] = repeated
        count.rows_failed += repeated
    draft.rows = count
    draft.seeds = {"order": ORDER_SEED}
    draft.data_version = fingerprint([file_sha256(file) for file in sorted(draft.folder.glob("rows-*.parquet"))])
    draft.summary = {"images": images, "captions": captions, "reader": reader.fingerprinted()}


def refuse_shared_images(name: str, target: Artifact, evaluated: str, images: Artifact) -> None:
    """Refuse a target set that has images of an evaluation set; raises `TrainingError` with their number."""
    tested: dict[str, str] = {}
    for batch in evaluated_images(images):
        tested.update(zip(batch.column("image_id").to_pylist(), batch.column("path").to_pylist(), strict=True))
    shared = [
        image_id
        for file in training_files(target)
        for batch in read_batches(file, ["image_id"])
        for image_id in batch.column("image_id").to_pylist()
        if image_id in tested
    ]
    if shared:
        raise TrainingError(
            f"The target set {name} has {len(shared):,} of the {len(tested):,} images of the evaluation set "
            f"{evaluated} (the first: {min(tested[each] for each in shared)}), and a model trained on them would be "
            "tested on what it has seen; take another split, or leave the images out."
        )


def _write_pairs(reader: Reader, path: Path, progress: Progress | None) -> tuple[int, list[dict[str, Any]]]:
    """Write the usable rows in the form that buckets are cut from; returns the rows of the source and the failures."""
    total = sum(1 for _ in reader.rows()) if progress is not None else 0
    failures: list[dict[str, Any]] = []
    rows_in = 0
    block: list[dict[str, Any]] = []
    with pq.ParquetWriter(path, _PAIRS, compression="zstd") as writer:
        for rows_in, (row, found) in enumerate(identified_rows(reader.rows()), start=1):
            if isinstance(found, ImageFault):
                failures.append(failure(KIND, str(row.row), row.image, found.reason, found.detail))
            else:
                pair = {"image_id": found.image_id, "image": row.image, "path": row.path, "raw_caption": row.caption}
                block.append(pair)
            if progress is not None:
                progress(rows_in, total, len(failures))
            if len(block) == _BLOCK_ROWS:
                writer.write_table(pa.Table.from_pylist(block, schema=_PAIRS))
                block = []
        writer.write_table(pa.Table.from_pylist(block, schema=_PAIRS))
    return rows_in, failures


def _used_by(graph: Graph, keys: Sequence[Key]) -> int:
    recipes = graph.recipes.values()
    return len({each.base for each in recipes if each.finetune and (each.finetune.target_set,) in keys})


def _configuration(graph: Graph, key: Key) -> Configuration:
    reader = graph.config.target_sets[key[0]]
    refuse_undrawn(reader)

    def identity(settings: Mapping[str, Any]) -> Configuration:
        return {"source": source_version(reader, settings)}

    return graph.fact(("target set", key), lambda: known_configuration(graph, KIND, key[0], reader, identity))


TARGET_SET = Stage(
    kind=KIND,
    code_version=CODE_VERSION,
    axes=("target_set",),
    keys=lambda graph: [
        (name,) for name in dict.fromkeys(r.finetune.target_set for r in graph.recipes.values() if r.finetune)
    ],
    settings=_configuration,
    build=_build,
    on_demand=True,
    prepare=lambda graph, key: draw(graph.config.target_sets[key[0]]),
    slot=lambda key: ("target_sets", key[0]),
    source=lambda graph, key: graph.config.target_sets[key[0]].fingerprinted(),
    cost=Cost(
        unit="sets",
        line=lambda graph, key: key[0],
        shared_by=_used_by,
        alike=lambda graph, key: (),
        verb="target set",
    ),
    tables={"rows-*.parquet": TRAINING_ROWS, "failures.parquet": FAILURES},
    reads_images=True,
    is_content=True,
)
