"""Classification's evaluation sets as tables: images that decode, each with its class, and the names for prompts."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from caploom.common.hashing import content_version
from caploom.common.progress import Progress
from caploom.common.settings import nearest
from caploom.errors import EvaluationError, SourceError
from caploom.evaluation.settings import ClassificationSet
from caploom.images.decode import ImageFault
from caploom.readers.identified import identified_rows
from caploom.readers.image_captions import ImageCaptionsReader
from caploom.readers.source_row import SourceRow
from caploom.storage.records import CLASSIFICATION_IMAGES
from caploom.storage.store import Artifact, Draft
from caploom.storage.tables import count_rows, failure, table_of, write_failures, write_table

KIND = "classification_images"
CODE_VERSION = "2"
IMAGENET_CLASSES = 1_000

_SUFFIXES = {".jpg", ".jpeg", ".jpe", ".png", ".webp", ".bmp", ".gif", ".ppm", ".tif", ".tiff", ".avif"}
_WORDNET_ID = re.compile(r"n\d{8}")


@dataclass(frozen=True)
class Classes:
    """The classes of a set: `labels` as in folders or the label file, sorted; `names` as in prompts."""

    labels: tuple[str, ...]
    names: tuple[str, ...]


def write_classification_images(
    name: str, settings: ClassificationSet, draft: Draft, progress: Progress | None = None
) -> None:
    """Write a classification set as `images.parquet` (schema CLASSIFICATION_IMAGES) and `failures.parquet`.

    Raises `EvaluationError` when its classes do not match the settings, or no image is usable.
    """
    rows = list(labelled_rows(settings))
    classes = classes_of(name, settings, rows)
    number = {label: index for index, label in enumerate(classes.labels)}
    images: list[dict[str, Any]] = []
    failures = []
    for done, (row, found) in enumerate(identified_rows(rows), start=1):
        if isinstance(found, ImageFault):
            failures.append(failure(KIND, str(row.row), row.image, found.reason, found.detail))
        else:
            label = number[str(row.caption)]
            image: dict[str, Any] = {"image_id": found.image_id, "image": row.image, "path": row.path}
            images.append({**image, "label": label, "phash": found.phash})
        if progress is not None:
            progress(done, len(rows), len(failures))
    if not images:
        first = failures[0]["detail"] if failures else f"there is no image in {settings.root}."
        raise EvaluationError(f"The evaluation set {name} has no usable image: {first}")
    write_table(table_of(images, CLASSIFICATION_IMAGES), draft.folder / "images.parquet")
    write_failures(failures, draft.folder)
    draft.rows = count_rows("images", len(rows), len(images), failures)
    draft.data_version = content_version(f"{image['image_id']}\t{image['label']}" for image in images)
    counts = Counter(image["label"] for image in images)
    draft.summary = {
        "images": len(images),
        "classes": len(classes.labels),
        "images_per_class": {
            "min": min(counts[index] for index in range(len(classes.labels))),
            "max": max(counts.values()),
        },
    }


def classification_identity(
    name: str, settings: ClassificationSet, recorded: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """All that decides the set, without opening an image; `recorded` are its settings before its files moved.

    Raises like `write_classification_images`.
    """
    rows = list(labelled_rows(settings))
    classes = classes_of(name, settings, rows)
    return {
        "reader": dict(recorded) if recorded is not None else settings.fingerprinted(),
        "labels": list(classes.labels),
        "names": list(classes.names),
        "listing": content_version(f"{row.image}\t{row.caption}\t{row.reason}" for row in rows),
    }


def set_classes(artifact: Artifact) -> Classes:
    """The classes of a finished set."""
    configuration = artifact.manifest.configuration
    return Classes(tuple(configuration["labels"]), tuple(configuration["names"]))


def labelled_rows(settings: ClassificationSet) -> Iterator[SourceRow]:
    """A row per image, with its label instead of a caption; in the order of folders and files, or of `labels`.

    Raises `SourceError` when folder or file are missing.
    """
    if settings.labels is not None:
        if not settings.labels.is_file():
            raise SourceError(f"{settings.labels}: there is no such file; correct `labels`.")
        reader = ImageCaptionsReader(root=str(settings.root), captions=str(settings.labels), caption_key="label")
        for row in reader.rows():
            yield row if row.caption is None else replace(row, caption=row.caption.strip())
        return
    if not settings.root.is_dir():
        raise SourceError(f"{settings.root}: there is no such folder; correct `root`.")
    number = 0
    for folder in _folders(settings.root):
        for file in sorted(folder.rglob("*")):
            if file.suffix.lower() in _SUFFIXES:
                number += 1
                image = file.relative_to(settings.root).as_posix()
                yield SourceRow(row=number, image=image, caption=folder.name, path=str(file))


def classes_of(name: str, settings: ClassificationSet, rows: Sequence[SourceRow]) -> Classes:
    """The classes, sorted by label; raises `EvaluationError` when labels and names don't match."""
    if settings.labels is None:
        labels = sorted(folder.name for folder in _folders(settings.root))
    else:
        labels = sorted({row.caption for row in rows if row.caption is not None})
    if settings.classes == "imagenet":
        return _imagenet(name, labels)
    if isinstance(settings.classes, dict):
        unnamed = [label for label in labels if label not in settings.classes]
        if unnamed:
            hint = nearest(unnamed[0], list(settings.classes))
            raise EvaluationError(
                f'The evaluation set {name}: `classes` has no name for "{unnamed[0]}" (and {len(unnamed) - 1:,} '
                f"others){hint}; name every class."
            )
        # The model may also choose a class without images.
        labels = sorted(settings.classes)
        names = [settings.classes[label] for label in labels]
    else:
        names = [label.replace("_", " ") for label in labels]
    if len(labels) < 2:
        raise EvaluationError(
            f"The evaluation set {name} has {len(labels)} class{'' if len(labels) == 1 else 'es'} but needs at least "
            f"two; `root` must be a folder of class folders, or name a file of `labels`: {settings.root}."
        )
    return Classes(tuple(labels), tuple(names))


def _imagenet(name: str, labels: Sequence[str]) -> Classes:
    strange = [label for label in labels if not _WORDNET_ID.fullmatch(label)]
    if len(labels) != IMAGENET_CLASSES or strange:
        such = f', and "{strange[0]}" is not a WordNet id such as n01440764' if strange else ""
        raise EvaluationError(
            f"The evaluation set {name}: `classes: imagenet` needs {IMAGENET_CLASSES:,} class folders named by their "
            f"WordNet ids, but there are {len(labels):,}{such}; sort the validation images into such folders."
        )
    from open_clip.zero_shot_metadata import IMAGENET_CLASSNAMES

    return Classes(tuple(labels), tuple(IMAGENET_CLASSNAMES))


def _folders(root: Path) -> list[Path]:
    return sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
