"""Runs a captioner over images: batches, and a failing image that fails alone."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from caploom.captioning.backend import Backend, Generation
from caploom.images import ImageFault, decode_image, read_identified_image

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True, slots=True)
class ImageRef:
    """An image to caption: its identity, where it lies, and what the user calls it."""

    image_id: str
    path: str
    image: str


@dataclass(frozen=True, slots=True)
class Captioned:
    """An image's generation, and its share of the batch's seconds."""

    ref: ImageRef
    generation: Generation
    seconds: float


@dataclass(frozen=True, slots=True)
class Failed:
    """Why an image has no caption."""

    ref: ImageRef
    reason: str
    detail: str


def caption_images(
    backend: Backend, refs: Sequence[ImageRef], batch_size: int
) -> Iterator[tuple[list[Captioned], list[Failed]]]:
    """Caption images batch by batch; every image comes back once, captioned or failed.

    Results are tied to the image they were made from: an unreadable image leaves its batch and shifts nobody.
    """
    for start in range(0, len(refs), batch_size):
        opened: list[tuple[ImageRef, Image]] = []
        failed: list[Failed] = []
        for ref in refs[start : start + batch_size]:
            try:
                opened.append((ref, _open(ref)))
            except ImageFault as fault:
                failed.append(Failed(ref, fault.reason, fault.detail))
        done, broken = _generate(backend, opened)
        yield done, [*failed, *broken]


def _open(ref: ImageRef) -> "Image":
    return decode_image(read_identified_image(Path(ref.path), ref.image_id), ref.path)


def _generate(backend: Backend, opened: "list[tuple[ImageRef, Image]]") -> tuple[list[Captioned], list[Failed]]:
    """Generate for a batch; when it fails, for its halves, so that in the end the image at fault stands alone."""
    if not opened:
        return [], []
    started = time.perf_counter()
    try:
        generations = backend.caption([image for _, image in opened], [ref.image_id for ref, _ in opened])
    # A model raises what it likes (out of memory among it): it becomes this image's failure row, or a smaller batch.
    except Exception as error:  # noqa: BLE001
        if len(opened) == 1:
            ref = opened[0][0]
            return [], [Failed(ref, "generation_error", f"{ref.image}: {type(error).__name__}: {error}")]
        middle = len(opened) // 2
        left, right = _generate(backend, opened[:middle]), _generate(backend, opened[middle:])
        return left[0] + right[0], left[1] + right[1]
    seconds = (time.perf_counter() - started) / len(opened)
    done: list[Captioned] = []
    failed: list[Failed] = []
    for (ref, _), generation in zip(opened, generations, strict=True):
        if generation.text:
            done.append(Captioned(ref, generation, seconds))
        else:
            failed.append(Failed(ref, "empty_caption", f"{ref.image}: the captioner said nothing."))
    return done, failed
