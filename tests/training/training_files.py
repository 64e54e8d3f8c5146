"""Small training sets and a tiny architecture for the tests beside this file."""

import json
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from caploom.storage.records import TRAINING_ROWS, image_identity
from caploom.training.job import TrainingEvent, TrainingJob, TrainingResult
from caploom.training.settings import ClipTrainerSettings
from caploom.training_set.settings import MixSettings

COLOURS = {
    "red": (220, 30, 30),
    "green": (30, 200, 60),
    "blue": (40, 60, 220),
    "yellow": (240, 220, 40),
    "black": (15, 15, 15),
    "white": (245, 245, 245),
    "purple": (140, 40, 170),
    "orange": (250, 140, 20),
}

TINY_ARCHITECTURE: dict[str, Any] = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 8},
    "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}


def train_files(
    files: Sequence[Path],
    settings: ClipTrainerSettings,
    *,
    seed: int,
    out: Path,
    report: Callable[[TrainingEvent], None] = lambda event: None,
    state: Path | None = None,
) -> TrainingResult:
    """Train in this process."""
    from caploom.training.trainer import train

    result = train(TrainingJob(training_set=list(files), settings=settings, seed=seed, out=out, state=state), report)
    assert result is not None
    return result


def write_tiny_architecture(folder: Path, changes: Mapping[str, Any] | None = None) -> Path:
    """A file of its own for each set of changes; those of a tower go into the tower's settings."""
    architecture = dict(TINY_ARCHITECTURE)
    for key, value in (changes or {}).items():
        architecture[key] = {**TINY_ARCHITECTURE[key], **value} if isinstance(value, dict) else value
    text = json.dumps(architecture)
    file = folder / (f"tiny-{zlib.crc32(text.encode())}.json" if changes else "tiny.json")
    file.write_text(text)
    return file


class TrainingFiles:
    """Writes the images and Parquet shards of small training sets into one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def images(self, count: int) -> list[tuple[Path, str]]:
        """Plain pictures of one colour with some noise, and the colour's name."""
        (self.folder / "images").mkdir(exist_ok=True)
        random = np.random.default_rng(0)
        images = []
        for index in range(count):
            name = list(COLOURS)[index % len(COLOURS)]
            pixels = np.clip(np.array(COLOURS[name]) + random.integers(-12, 12, (40, 40, 3)), 0, 255)
            path = self.folder / "images" / f"{index:03d}.png"
            Image.fromarray(pixels.astype(np.uint8)).save(path)
            images.append((path, name))
        return images

    def row(
        self,
        path: Path,
        captions: Sequence[str],
        weights: Sequence[float] | None = None,
        sources: Sequence[str] | None = None,
    ) -> dict[str, Any]:
        return {
            "image_id": image_identity(path.read_bytes()),
            "image": path.name,
            "path": str(path),
            "captions": list(captions),
            "sources": list(sources) if sources else [f"source-{index}" for index in range(len(captions))],
            "weights": list(weights) if weights is not None else [1 / len(captions) for _ in captions],
        }

    def shard(self, name: str, rows: list[dict[str, Any]], mix: Any = "uniform") -> Path:
        file = self.folder / f"{name}.parquet"
        drawing = MixSettings.model_validate(mix).drawing
        pq.write_table(pa.Table.from_pylist(rows, schema=TRAINING_ROWS.with_metadata(drawing.metadata())), file)
        return file

    def numbered_shard(self, count: int, missing: Sequence[int] = ()) -> Path:
        """A shard in which row i's caption is its number; the images of the `missing` rows are deleted."""
        images = self.images(count)
        shard = self.shard("numbered", [self.row(path, [str(index)]) for index, (path, _) in enumerate(images)])
        for index in missing:
            images[index][0].unlink()
        return shard

    def colours_shard(self) -> Path:
        """24 rows of plain colours with two captions each."""
        captions = ("a {} picture", "the colour {}, nothing else")
        rows = [self.row(path, [caption.format(name) for caption in captions]) for path, name in self.images(24)]
        return self.shard("colours", rows)
