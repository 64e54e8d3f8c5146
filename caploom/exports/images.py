"""The images of a training set as every export reads them: streamed, each with all its captions, its file checked."""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import IO, Literal

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import ValidationError

from caploom.common.progress import Progress
from caploom.errors import StoreError
from caploom.images.decode import ImageFault, read_identified_image
from caploom.images.location import Location
from caploom.images.moves import STAYED, Moves
from caploom.training_set.settings import Drawing

Check = Literal["content", "exists", "none"]

_COLUMNS = ["image_id", "image", "path", "captions", "sources", "weights"]
_ROWS_A_BATCH = 2_000
_REPORT_EVERY = 500

_SIGNATURES = (
    (re.compile(rb"\xff\xd8\xff"), "jpg"),
    (re.compile(rb"\x89PNG\r\n\x1a\n"), "png"),
    (re.compile(rb"RIFF....WEBP", re.DOTALL), "webp"),
    (re.compile(rb"GIF8[79]a"), "gif"),
    (re.compile(rb"BM"), "bmp"),
    (re.compile(rb"II\*\0|MM\0\*"), "tiff"),
)


@dataclass(frozen=True, slots=True)
class ExportImage:
    """An image with its captions; `captions`, `sources` and `weights` are parallel."""

    image_id: str
    image: str  # the user's own path
    path: str  # location (see caploom.images.location)
    captions: list[str]
    sources: list[str]
    weights: list[float]

    def draw(self, seed: int) -> int:
        """The index of one caption, drawn with the weights; the same for the same image and seed on every machine."""
        digest = hashlib.sha256(f"{seed}\n{self.image_id}".encode()).digest()
        point = int.from_bytes(digest[:8], "big") / 2**64 * sum(self.weights)
        for index, weight in enumerate(self.weights):
            point -= weight
            if point < 0:
                return index
        return len(self.weights) - 1

    def only(self, kept: list[int]) -> "ExportImage":
        """The image with the captions at those indices."""
        return replace(
            self,
            captions=[self.captions[index] for index in kept],
            sources=[self.sources[index] for index in kept],
            weights=[self.weights[index] for index in kept],
        )

    def rounded_weights(self) -> list[float]:
        """The weights for people to read: 0.2 and not the 0.20000000298 of 32 bits."""
        return [round(weight, 6) for weight in self.weights]

    def slots(self) -> list[str]:
        """A name for each caption: its source, and `source#2`, `source#3` for further captions of the same source."""
        seen: Counter[str] = Counter()
        names = []
        for source in self.sources:
            seen[source] += 1
            names.append(source if seen[source] == 1 else f"{source}#{seen[source]}")
        return names


class ImageStream:
    """Iterates over (image, the bytes of its file); skipped captions are counted and recorded.

    The bytes are empty unless `check` is "content". Adjacent rows of one image (the mix `concatenate`) come as one
    image with all its captions. Captions are as training sees them: with the mix's `source_prefix` the source's name
    goes before them, and those that the mix never draws (weight 0) are counted and left out. Captions that are blank,
    and images whose file is missing or no longer what was ingested, are rows of `skipped.jsonl` in `folder`, which
    exists only when something was skipped. `moves` says where the images are now.
    """

    def __init__(
        self,
        files: Sequence[Path],
        check: Check,
        folder: Path,
        progress: Progress | None = None,
        moves: Moves = STAYED,
    ) -> None:
        self._moves = moves
        self.captions = 0
        self.reasons: Counter[str] = Counter()  # captions that were skipped, by reason
        self.drawing = _drawing(files[0]) if files else Drawing()
        self._files, self._check, self._progress = files, check, progress
        self._skipped_path = folder / "skipped.jsonl"
        self._skipped: IO[str] | None = None

    def __iter__(self) -> Iterator[tuple[ExportImage, bytes]]:
        try:
            for row in merged_by_image(self._rows()):
                self.captions += len(row.captions)
                image = self._as_drawn(self._without_blanks(row))
                if not image.captions:
                    continue
                try:
                    data = self._checked(image)
                except ImageFault as fault:
                    self.skip(image, fault.reason, fault.detail)
                    continue
                yield image, data
        finally:
            if self._skipped is not None:
                self._skipped.close()

    def file_of(self, image: ExportImage, data: bytes, folder: Path, final: str) -> str | None:
        """A file with only this image: its own, or a copy below `folder` of one inside a container.

        The files of `folder` will end up in `final`. None when it cannot be read; it is then recorded as skipped.
        """
        if Location.parse(image.path).offset is None:
            return image.path
        try:
            content = data or read_identified_image(image.path, image.image_id)
        except ImageFault as fault:
            self.skip(image, fault.reason, fault.detail)
            return None
        name = f"images/{image.image_id[:2]}/{image.image_id}.{image_extension(content, image.image)}"
        target = folder / name
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
        return f"{final}/{name}"

    def skip(self, image: ExportImage, reason: str, detail: str, captions: int | None = None) -> None:
        """Record that an image's captions, or so many of them, are not in the export."""
        captions = len(image.captions) if captions is None else captions
        self.leave_out(reason, captions)
        if self._skipped is None:
            self._skipped = self._skipped_path.open("w", encoding="utf-8")
        row = {"image_id": image.image_id, "image": image.image, "reason": reason, "detail": detail}
        self._skipped.write(json.dumps({**row, "captions": captions}, ensure_ascii=False) + "\n")

    def leave_out(self, reason: str, captions: int) -> None:
        """Count captions that the export leaves out on purpose; they get no row."""
        if captions:
            self.reasons[reason] += captions

    def _rows(self) -> Iterator[ExportImage]:
        opened = [_parquet(file) for file in self._files]
        total, done = sum(parquet.metadata.num_rows for parquet in opened), 0
        for file, parquet in zip(self._files, opened, strict=True):
            for row in _rows_of(parquet, file):
                done += 1
                row = replace(row, path=self._moves.present(row.path))
                if self._progress is not None and (done % _REPORT_EVERY == 0 or done == total):
                    self._progress(done, total)
                yield row

    def _without_blanks(self, image: ExportImage) -> ExportImage:
        if not image.captions:
            self.skip(image, "no_caption", f"{image.image}: it has no caption.", 0)
            return image
        kept = [index for index, caption in enumerate(image.captions) if caption.strip()]
        if len(kept) == len(image.captions):
            return image
        blank = len(image.captions) - len(kept)
        self.skip(image, "blank_caption", f"{image.image}: {blank} of its captions are blank.", blank)
        return image.only(kept)

    def _as_drawn(self, image: ExportImage) -> ExportImage:
        drawn = [index for index, weight in enumerate(image.weights) if weight > 0]
        if drawn and len(drawn) < len(image.weights):
            self.leave_out("never_drawn", len(image.weights) - len(drawn))
            image = image.only(drawn)
        if not self.drawing.source_prefix:
            return image
        prefixed = [f"{source}: {text}" for source, text in zip(image.sources, image.captions, strict=True)]
        return replace(image, captions=prefixed)

    def _checked(self, image: ExportImage) -> bytes:
        if self._check == "content":
            return read_identified_image(image.path, image.image_id)
        if self._check == "exists" and not Path(uri := Location.parse(image.path).uri).is_file():
            raise ImageFault("missing_image", f"{uri}: there is no such file.")
        return b""


def merged_by_image(rows: Iterable[ExportImage]) -> Iterator[ExportImage]:
    """Adjacent rows of one image as one: all its captions, each row with an equal share of the weight."""
    for _, group in groupby(rows, key=attrgetter("image_id")):
        first, *others = group
        if not others:
            yield first
            continue
        several = [first, *others]
        yield replace(
            first,
            captions=[caption for row in several for caption in row.captions],
            sources=[source for row in several for source in row.sources],
            weights=[weight / len(several) for row in several for weight in row.weights],
        )


def image_extension(data: bytes, path: str) -> str:
    """The usual extension of an image's format, without the dot: from its first bytes, else from its file's name."""
    for signature, extension in _SIGNATURES:
        if signature.match(data):
            return extension
    suffix = Path(path).suffix.removeprefix(".").lower()
    return suffix if re.fullmatch(r"[a-z0-9]{1,8}", suffix) else "img"


def _drawing(file: Path) -> Drawing:
    with _parquet(file) as parquet:
        try:
            return Drawing.of_metadata(parquet.schema_arrow.metadata)
        except ValidationError as error:
            raise _unreadable(file, error) from None


def _parquet(file: Path) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(file)
    except (OSError, pa.ArrowException) as error:
        raise _unreadable(file, error) from None


def _rows_of(parquet: pq.ParquetFile, file: Path) -> Iterator[ExportImage]:
    with parquet:
        batches = parquet.iter_batches(batch_size=_ROWS_A_BATCH, columns=_COLUMNS)
        while True:
            try:
                batch = next(batches, None)
            except (OSError, pa.ArrowException) as error:
                raise _unreadable(file, error) from None
            if batch is None:
                return
            for row in batch.to_pylist():
                yield ExportImage(**row)


def _unreadable(file: Path, error: Exception) -> StoreError:
    return StoreError(f"{file}: it cannot be read ({error}); delete its folder and rebuild the training set.")
