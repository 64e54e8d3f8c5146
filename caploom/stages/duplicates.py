"""Pictures of the training data that are nearly another one of it, or one of an evaluation set, as artifacts.

Neither is an input of the training set: what it leaves out is part of its plan, so that a new evaluation set without a
common picture leaves every training set and checkpoint as it is.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa

from caploom.common.hashing import content_version
from caploom.errors import CaploomError, EvaluationError, SourceError, TrainingError
from caploom.images.check import NO_HASH
from caploom.stages.evaluation_sets import EVALUATION_KINDS, evaluated_sets, evaluation_ref, hashes_of
from caploom.stages.stage import Key, Making, Stage
from caploom.storage.records import LEAKED_IMAGES
from caploom.storage.records import NEAR_DUPLICATES as NEAR_DUPLICATES_SCHEMA
from caploom.storage.store import Artifact, Draft
from caploom.storage.tables import read_table, write_table
from caploom.training_set.hamming import first_alike, pairs_between

NEAR_KIND = "near_duplicates"
LEAKAGE_KIND = "leakage"
CODE_VERSION = "1"


def _build_near(making: Making, draft: Draft) -> None:
    """`images.parquet` (schema NEAR_DUPLICATES): each picture that is nearly a larger one.

    Of pictures alike, the one with the most pixels stays, then the one of the smallest identity; a picture is a
    duplicate of one that stays, so chains of small changes are not glued together.
    """
    images = _images_of(making.inputs())
    order = np.lexsort((images["image_id"], -images["pixels"]))
    ids, hashes = images["image_id"][order], images["phash"][order]
    rows = list(_duplicates(ids, hashes, making.config.duplicates.near_distance))
    table = pa.Table.from_pylist(rows, schema=NEAR_DUPLICATES_SCHEMA)
    write_table(table, draft.folder / "images.parquet")
    draft.data_version = content_version(f"{row['image_id']}\t{row['duplicate_of']}" for row in rows)
    draft.summary = {"images": len(ids), "duplicates": len(rows), "without_hash": int((hashes == NO_HASH).sum())}


def _build_leakage(making: Making, draft: Draft) -> None:
    """`images.parquet` (schema LEAKED_IMAGES): each picture that the evaluation set holds too."""
    evaluated, *pairs = making.inputs()
    images, theirs = _images_of(pairs), hashes_of(evaluated)
    rows = list(_leaked(images, theirs, making.config.duplicates.leakage_distance))
    write_table(pa.Table.from_pylist(rows, schema=LEAKED_IMAGES), draft.folder / "images.parquet")
    draft.data_version = content_version(f"{row['image_id']}\t{row['evaluation_image_id']}" for row in rows)
    exact = sum(row["image_id"] == row["evaluation_image_id"] for row in rows)
    draft.summary = {"images": len(images["image_id"]), "exact": exact, "near": len(rows) - exact}


def _cannot_be_told(key: Key, error: CaploomError) -> CaploomError:
    if not isinstance(error, SourceError | EvaluationError):
        return error
    return TrainingError(
        f"Whether training images are among those of the evaluation set {key[0]} cannot be told: {error} Or set "
        "`duplicates.leakage` to off."
    )


def _images_of(pairs: Sequence[Artifact]) -> dict[str, np.ndarray]:
    """Every image of the raw pairs once: its identity, its hash and its pixels."""
    columns = ["image_id", "phash", "width", "height"]
    tables = [read_table(each.file("pairs.parquet"), columns) for each in pairs]
    table = pa.concat_tables(tables)
    ids, first = np.unique(table["image_id"].to_numpy(zero_copy_only=False).astype("U64"), return_index=True)
    pixels = table["width"].to_numpy().astype(np.int64) * table["height"].to_numpy()
    return {"image_id": ids, "phash": table["phash"].to_numpy()[first], "pixels": pixels[first]}


def _duplicates(ids: np.ndarray, hashes: np.ndarray, distance: int) -> Iterator[dict[str, object]]:
    """The duplicates among images in the order in which they would stay."""
    comparable = np.flatnonzero(hashes != NO_HASH)
    _, first, hash_of = np.unique(hashes[comparable], return_index=True, return_inverse=True)
    order = np.argsort(first)  # of the different hashes: by the first image that has it
    first = comparable[first[order]]
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    kept = first[first_alike(hashes[first], distance)[place[hash_of]]]
    for image, other in zip(comparable[kept != comparable], kept[kept != comparable], strict=True):
        bits = int(np.bitwise_count(hashes[image] ^ hashes[other]))
        yield {"image_id": str(ids[image]), "duplicate_of": str(ids[other]), "distance": bits}


def _leaked(images: dict[str, np.ndarray], theirs: pa.Table, distance: int) -> Iterator[dict[str, object]]:
    ids = theirs["image_id"].to_numpy(zero_copy_only=False).astype("U64")
    hashes = theirs["phash"].to_numpy()
    exact = np.isin(images["image_id"], ids)
    ours, of_image = np.unique(images["phash"], return_inverse=True)
    comparable, first = np.unique(hashes, return_index=True)
    first, comparable = first[comparable != NO_HASH], comparable[comparable != NO_HASH]
    nearest: dict[int, tuple[int, str]] = {}  # by our hash: bits, and the evaluation image of the nearest of theirs
    flat = int((ours == NO_HASH).sum())
    for found in pairs_between(comparable, ours[flat:], distance):
        for their, our, bits in zip(
            found.left.tolist(), (found.right + flat).tolist(), found.bits.tolist(), strict=True
        ):
            candidate = (int(bits), str(ids[first[their]]))
            nearest[our] = min(nearest.get(our, candidate), candidate)
    for image in np.flatnonzero(exact | np.isin(of_image, list(nearest))):
        image_id = str(images["image_id"][image])
        bits, other = (0, image_id) if exact[image] else nearest[int(of_image[image])]
        yield {"image_id": image_id, "evaluation_image_id": other, "distance": bits}


NEAR_DUPLICATES = Stage(
    kind=NEAR_KIND,
    code_version=CODE_VERSION,
    axes=(),
    keys=lambda graph: [()],
    settings=lambda graph, key: {"distance": graph.config.duplicates.near_distance},
    build=_build_near,
    upstream=("raw_pairs",),
    inputs=lambda graph, key: graph.refs("raw_pairs"),
    on_demand=True,
    hidden=True,
    cost=None,
    tables={"images.parquet": NEAR_DUPLICATES_SCHEMA},
)

LEAKAGE = Stage(
    kind=LEAKAGE_KIND,
    code_version=CODE_VERSION,
    axes=("evaluation_set",),
    keys=lambda graph: [(name,) for name in evaluated_sets(graph)],
    settings=lambda graph, key: {"distance": graph.config.duplicates.leakage_distance},
    build=_build_leakage,
    upstream=(*EVALUATION_KINDS, "raw_pairs"),
    inputs=lambda graph, key: [evaluation_ref(graph.config, key[0]), *graph.refs("raw_pairs")],
    on_demand=True,
    explain=_cannot_be_told,
    hidden=True,
    cost=None,
    tables={"images.parquet": LEAKED_IMAGES},
)
