"""Pictures of the training data that are nearly another one of it, or one of an evaluation set, as artifacts.

Neither is an input of the training set: what it leaves out is part of its plan, so that a new evaluation set without a
common picture leaves every training set and checkpoint as it is.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa

from caploom.common.hashing import content_version
from caploom.config.factory import Factory
from caploom.errors import CaploomError, EvaluationError, SourceError, TrainingError
from caploom.images.check import NO_HASH
from caploom.stages.evaluation_sets import evaluation_set, evaluation_set_plan, hashes_of
from caploom.storage.records import LEAKED_IMAGES, NEAR_DUPLICATES
from caploom.storage.store import Artifact, Draft, Plan
from caploom.storage.tables import read_table, write_table
from caploom.training_set.hamming import first_alike, pairs_between

NEAR_KIND = "near_duplicates"
LEAKAGE_KIND = "leakage"
CODE_VERSION = "1"


def near_duplicates_plan(factory: Factory, pairs: Sequence[Artifact]) -> Plan:
    """The plan of the near-duplicates among raw pairs."""
    configuration = {"distance": factory.config.duplicates.near_distance}
    plan = Plan(kind=NEAR_KIND, code_version=CODE_VERSION, configuration=configuration)
    return plan.of(each.as_input() for each in pairs)


def near_duplicates(factory: Factory, pairs: Sequence[Artifact]) -> Artifact:
    """`images.parquet` (schema NEAR_DUPLICATES): each picture that is nearly a larger one, made unless it is made.

    Of pictures alike, the one with the most pixels stays, then the one of the smallest identity; a picture is a
    duplicate of one that stays, so chains of small changes are not glued together.
    """
    distance = factory.config.duplicates.near_distance

    def build(draft: Draft) -> None:
        images = _images_of(pairs)
        order = np.lexsort((images["image_id"], -images["pixels"]))
        ids, hashes = images["image_id"][order], images["phash"][order]
        rows = list(_duplicates(ids, hashes, distance))
        table = pa.Table.from_pylist(rows, schema=NEAR_DUPLICATES)
        write_table(table, draft.folder / "images.parquet")
        draft.data_version = content_version(f"{row['image_id']}\t{row['duplicate_of']}" for row in rows)
        draft.summary = {"images": len(ids), "duplicates": len(rows), "without_hash": int((hashes == NO_HASH).sum())}

    return factory.store.make(near_duplicates_plan(factory, pairs), build)


def known_leakage(factory: Factory, name: str, pairs: Sequence[Artifact]) -> Artifact | None:
    """What `leakage` gives, if it is made already; nothing is made, and no image is read."""
    try:
        evaluated = factory.store.find(evaluation_set_plan(factory, name))
    except CaploomError:  # the set cannot be read: who measures on it is told
        return None
    return factory.store.find(_leakage_plan(factory, name, [evaluated, *pairs])) if evaluated is not None else None


def _leakage_plan(factory: Factory, name: str, inputs: Sequence[Artifact]) -> Plan:
    configuration = {"distance": factory.config.duplicates.leakage_distance}
    plan = Plan(kind=LEAKAGE_KIND, name=(name,), code_version=CODE_VERSION, configuration=configuration)
    return plan.of(each.as_input() for each in inputs)


def leakage(factory: Factory, name: str, pairs: Sequence[Artifact]) -> Artifact:
    """`images.parquet` (schema LEAKED_IMAGES): each picture that the evaluation set of that name holds too.

    Raises `TrainingError` when the evaluation set cannot be read.
    """
    distance = factory.config.duplicates.leakage_distance
    try:
        evaluated = evaluation_set(factory, name)
    except (SourceError, EvaluationError) as error:
        raise TrainingError(
            f"Whether training images are among those of the evaluation set {name} cannot be told: {error} Or set "
            "`duplicates.leakage` to off."
        ) from None

    def build(draft: Draft) -> None:
        images, theirs = _images_of(pairs), hashes_of(evaluated)
        rows = list(_leaked(images, theirs, distance))
        write_table(pa.Table.from_pylist(rows, schema=LEAKED_IMAGES), draft.folder / "images.parquet")
        draft.data_version = content_version(f"{row['image_id']}\t{row['evaluation_image_id']}" for row in rows)
        exact = sum(row["image_id"] == row["evaluation_image_id"] for row in rows)
        draft.summary = {"images": len(images["image_id"]), "exact": exact, "near": len(rows) - exact}

    return factory.store.make(_leakage_plan(factory, name, [evaluated, *pairs]), build)


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
