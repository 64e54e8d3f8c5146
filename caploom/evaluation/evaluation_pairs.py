"""Retrieval's evaluation sets as tables: images that decode, each with all its captions."""

import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from caploom.common.hashing import content_version
from caploom.common.progress import Progress
from caploom.errors import EvaluationError
from caploom.evaluation.protocols import CAPTIONS_EACH, PROTOCOLS, check_counts, check_dataset, note_of
from caploom.evaluation.settings import KarpathySet, RetrievalSet
from caploom.images.check import NO_HASH
from caploom.images.decode import ImageFault
from caploom.readers.identified import identified_rows
from caploom.readers.source_row import SourceRow
from caploom.readers.source_version import source_version
from caploom.storage.records import EVALUATION_PAIRS
from caploom.storage.store import Draft
from caploom.storage.tables import count_rows, failure, table_of, write_failures, write_table

KIND = "evaluation_pairs"
CODE_VERSION = "3"

_MAX_COPIES = 0.01


def write_evaluation_pairs(name: str, settings: RetrievalSet, draft: Draft, progress: Progress | None = None) -> None:
    """Write an evaluation set as `pairs.parquet` (schema EVALUATION_PAIRS) and `failures.parquet` into a draft.

    Raises `EvaluationError` when the set violates its protocol, or has no usable pair.
    """
    rows = list(settings.rows())
    dataset = settings.dataset() if isinstance(settings, KarpathySet) else None
    checked, beyond, copies = None, set[int](), 0
    if settings.protocol is not None:
        check_dataset(name, settings.protocol, dataset)
        checked, beyond = _check_protocol(name, settings.protocol, rows)
    images, failures = _images(rows, beyond, progress, merge=settings.protocol is None)
    if settings.protocol is not None:
        _refuse_missing(name, settings.protocol, failures)
        copies = _count_copies(name, settings.protocol, images)
        _set_folds(images, PROTOCOLS[settings.protocol].folds)
    if not images:
        first = failures[0]["detail"] if failures else "the source has no rows."
        raise EvaluationError(f"The evaluation set {name} has no usable pair: {first}")
    write_table(table_of(images, EVALUATION_PAIRS), draft.folder / "pairs.parquet")
    write_failures(failures, draft.folder)
    counts = [len(image["captions"]) for image in images]
    draft.rows = count_rows("rows of the source", len(rows), sum(counts), failures)
    draft.data_version = content_version(
        f"{image['image_id']}\t{image['fold']}\t{caption}" for image in images for caption in image["captions"]
    )
    draft.summary = {
        "images": len(images),
        "captions": sum(counts),
        "captions_per_image": {
            "min": min(counts),
            "median": statistics.median(counts),
            "max": max(counts),
        },
        "reader": settings.fingerprinted(),
    }
    note = None
    if checked is None and isinstance(settings, KarpathySet):
        note = note_of(dataset, settings.splits, len(images), sum(counts))
    if copies:
        note = f"Copies of another image under a second name: {copies:,}; each counts, as elsewhere."
    draft.summary |= {key: value for key, value in (("protocol", checked), ("note", note)) if value}


def evaluation_pairs_identity(settings: RetrievalSet, recorded: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """All that decides the set, without reading an image; `recorded` are its settings before its files moved.

    Raises `SourceError` when its source is missing.
    """
    return {"source": source_version(settings, recorded), "protocol": settings.protocol}


def _check_protocol(name: str, protocol: str, rows: Sequence[SourceRow]) -> tuple[str, set[int]]:
    """The protocol's description of the set, and the positions of the rows that the protocol does not use."""
    bad = [row for row in rows if row.reason is not None]
    if bad:
        raise EvaluationError(
            f"The evaluation set {name} is not {protocol}: {len(bad):,} of its rows are unusable; the first: "
            f"{bad[0].detail}"
        )
    captions = Counter[str]()
    beyond = set()
    for position, row in enumerate(rows):
        captions[row.image] += 1
        if PROTOCOLS[protocol].first_only and captions[row.image] > CAPTIONS_EACH:
            beyond.add(position)
    return check_counts(name, protocol, captions), beyond


def _images(
    rows: Sequence[SourceRow], beyond: set[int], progress: Progress | None, *, merge: bool
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The images as EVALUATION_PAIRS in their order, and the failures: together all rows.

    One record may contain a caption twice (two people wrote it). With `merge`, a picture under several names is one
    image, and a caption that another record of it already has is a failure; without, each name is an image.
    """
    images: dict[str, dict[str, Any]] = {}
    first_rows: dict[tuple[str, str], int] = {}
    failures = []
    for position, (row, found) in enumerate(identified_rows(rows)):
        fault, image_id, phash = found if isinstance(found, ImageFault) else None, "", NO_HASH
        if not isinstance(found, ImageFault):
            image_id, phash = found.image_id, found.phash
        if position in beyond:
            detail = f"row {row.row}: the protocol takes the first {CAPTIONS_EACH} captions of an image."
            fault = ImageFault("beyond_protocol", detail)
        if fault is None and merge:
            first = first_rows.setdefault((image_id, str(row.caption)), row.row)
            if first != row.row:
                detail = f"row {row.row}: the same image with the same caption is already in row {first}."
                fault = ImageFault("duplicate_pair", detail)
        if fault is not None:
            failures.append(failure(KIND, str(row.row), row.image, fault.reason, fault.detail))
        else:
            entry: dict[str, Any] = {
                "image_id": image_id,
                "image": row.image,
                "path": row.path,
                "captions": [],
                "fold": None,
                "phash": phash,
            }
            images.setdefault(image_id if merge else row.image, entry)["captions"].append(row.caption)
        if progress is not None:
            progress(position + 1, len(rows), len(failures))
    return list(images.values()), failures


def _refuse_missing(name: str, protocol: str, failures: Sequence[dict[str, Any]]) -> None:
    missing = [each for each in failures if each["reason"] != "beyond_protocol"]
    wanted = PROTOCOLS[protocol].images
    if missing:
        count = len({each["image"] for each in missing})
        raise EvaluationError(
            f"The evaluation set {name}: {count:,} of the {wanted:,} images of {protocol} are unusable, and a recall "
            f"over the rest would be another set's; restore them. The first: {missing[0]['detail']}"
        )


def _count_copies(name: str, protocol: str, images: Sequence[dict[str, Any]]) -> int:
    """The number of images that are another's picture under a second name; raises if there are too many."""
    differ = len({image["image_id"] for image in images})
    if len(images) - differ > _MAX_COPIES * len(images):
        raise EvaluationError(
            f"The evaluation set {name}: of the {len(images):,} image files of {protocol} only {differ:,} differ; the "
            "same picture is there under several names: unpack the images again."
        )
    return len(images) - differ


def _set_folds(images: Sequence[dict[str, Any]], folds: int) -> None:
    size = len(images) // folds
    for position, image in enumerate(images):
        image["fold"] = position // size if folds > 1 else None
