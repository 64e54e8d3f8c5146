"""Evaluation sources to test with: tiny images, each another, and Karpathy's JSON over them."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def write_image(path: Path, number: int) -> None:
    """A PPM of one pixel."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"P6 1 1 255\n" + bytes([number % 256, number // 256 % 256, number // 65536]))


def write_karpathy(
    folder: Path,
    captions: Sequence[int],
    *,
    split: str = "test",
    dataset: str | None = "coco",
    extra: Sequence[dict[str, Any]] = (),
    drawn: Path | None = None,
) -> dict[str, Any]:
    """`captions[i]` captions of image i, with the images; returns the reader's settings.

    `drawn` is the root of another such set, which has at least these images: they are taken from there.
    """
    root, images = drawn or folder / "images", []
    folder.mkdir(parents=True, exist_ok=True)
    for number, count in enumerate(captions):
        name = f"{number:06d}.ppm"
        if drawn is None:
            write_image(root / "val2014" / name, number)
        sentences = [{"raw": f"caption {place} of picture {number}"} for place in range(count)]
        images.append({"filename": name, "filepath": "val2014", "split": split, "sentences": sentences})
    content = {"images": [*images, *extra]} | ({"dataset": dataset} if dataset else {})
    (folder / "dataset.json").write_text(json.dumps(content))
    return {"reader": "karpathy", "root": str(root), "captions": str(folder / "dataset.json")}


COCO = [5] * 4_992 + [6] * 7 + [8]
"""5,000 images and 25,010 captions."""
