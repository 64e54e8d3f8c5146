"""Writes a training set in another tool's format, completely or not at all, with an `export.json` next to it."""

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

import caploom
from caploom.common.progress import Progress
from caploom.common.settings import describe_validation_error
from caploom.errors import ExportError
from caploom.exports.format import ExportFormat, Written
from caploom.exports.images import ImageStream
from caploom.exports.registry import export_format, format_name
from caploom.images.moves import STAYED, Moves
from caploom.storage.atomic_output import absolute, atomic_output
from caploom.storage.manifest import RowCount
from caploom.storage.store import Artifact
from caploom.storage.writing import fsync_path
from caploom.training_set.settings import Drawing
from caploom.training_set.write import training_files

EXPORT_MANIFEST = "export.json"
EXPORT_VERSION = 1


class ExportManifest(BaseModel):
    """The content of `export.json`: what was exported, how, and what became of every caption."""

    model_config = ConfigDict(extra="forbid")

    export_version: int = EXPORT_VERSION
    format: str
    options: dict[str, Any]
    recipe: str
    training_set: str  # its address in the store
    data_version: str  # of the training set
    rows: RowCount
    images: int
    facts: dict[str, Any]  # the format's own: caption keys, their probabilities, ...
    how_to_read: list[str]
    notes: list[str]  # parts of the mix that no reader of the export applies
    files: dict[str, int]  # sizes in bytes; linked and copied images are not listed
    caploom_version: str = caploom.__version__


def export_training_set(
    training_set: Artifact,
    format: str,
    out: Path | str,
    *,
    progress: Progress | None = None,
    moves: Moves = STAYED,
    **options: Any,
) -> ExportManifest:
    """Write a training set to the folder or URL `out`, which must be new or empty, in the format of that name.

    The options are the fields of the format's class; `moves` says where the images are now (`stages.moves.moves_of`).
    An image whose file is missing or changed since its ingestion is skipped, with a row in `skipped.jsonl`. At a
    URL `export.json` comes last. Raises `ExportError` for a wrong format, option or folder, for a full disk, and when
    nothing would be left to export; `out` then stays as it was.

    Example:
        >>> manifest = export_training_set(training_set, "open-clip-tsv", Path("exported"), one_per_image=True)
        >>> manifest.images, manifest.files.keys()
        (14, dict_keys(['pairs.tsv']))
    """
    format = format_name(format)
    chosen = _with_options(format, options)
    final = absolute(out)
    with atomic_output(final, last=EXPORT_MANIFEST) as folder:
        images = ImageStream(training_files(training_set), chosen.image_check, folder, progress, moves)
        written = chosen.write(images, folder, final)
        manifest = _manifest(training_set, format, chosen, images, written, folder)
        for name in manifest.files:
            fsync_path(folder / name)
        (folder / EXPORT_MANIFEST).write_text(manifest.model_dump_json(indent=2) + "\n", encoding="utf-8")
        fsync_path(folder / EXPORT_MANIFEST)
    return manifest


def _with_options(name: str, options: dict[str, Any]) -> ExportFormat:
    format_class = export_format(name)
    try:
        return format_class.model_validate(options)
    except ValidationError as error:
        problems = describe_validation_error(error, format_class)
        raise ExportError("\n".join(f"Export format {name}: {problem}." for problem in problems)) from None


def _manifest(
    training_set: Artifact, name: str, chosen: ExportFormat, images: ImageStream, written: Written, folder: Path
) -> ExportManifest:
    reasons = dict(sorted(images.reasons.items()))
    rows = RowCount(
        unit="captions",
        rows_in=images.captions,
        rows_out=written.captions,
        rows_failed=sum(reasons.values()),
        reasons=reasons,
    )
    address = training_set.manifest.address
    if not rows.holds:
        raise ExportError(
            f"{address}: {rows.rows_in} captions came in, {rows.rows_out} went out and {rows.rows_failed} were "
            "skipped: rows were lost or duplicated, so nothing was written; report this bug."
        )
    if written.captions == 0:
        why = ", ".join(f"{number} {reason}" for reason, number in reasons.items()) or "it has no captions"
        raise ExportError(f"{address}: nothing is left to export ({why}), so nothing was written.")
    skipped = ["skipped.jsonl"] if (folder / "skipped.jsonl").exists() else []
    return ExportManifest(
        format=name,
        options=chosen.model_dump(mode="json"),
        recipe=address.split("/")[1],
        training_set=address,
        data_version=training_set.data_version,
        rows=rows,
        images=written.images,
        facts=written.facts,
        how_to_read=written.how_to_read,
        notes=_notes(images.drawing),
        files={file: (folder / file).stat().st_size for file in [*written.files, *skipped]},
    )


def _notes(drawing: Drawing) -> list[str]:
    """What Caploom's trainer does when drawing from a row, and other tools do not."""
    notes = []
    if drawing.texts > 1:
        notes.append(
            f"The mix trains on up to {drawing.texts} captions of an image in one step; readers of this export on one."
        )
    if drawing.sub_caption:
        notes.append("The mix trains on a random sentence of each drawn caption; the export has whole captions.")
    return notes
