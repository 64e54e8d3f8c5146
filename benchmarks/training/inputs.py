"""What the training benchmark reads: photographs' worth of JPEG with five captions, and picture-book scenes."""

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.captions import CAPTIONERS, caption_column, raw_caption_column
from benchmarks.pictures import write_pictures
from caploom.common.names import RAW_SOURCE
from caploom.readers.picture_book import PictureBookReader
from caploom.shearing.rules import RULES
from caploom.storage.records import EVALUATION_PAIRS, RESIZED_IMAGES, TRAINING_ROWS, image_identity
from caploom.training.image_sources import IMAGES_FILE, PIXELS_FILE

BATCH = 64
MODEL: dict[str, Any] = {
    "embed_dim": 128,
    "vision_cfg": {"image_size": 224, "layers": 3, "width": 192, "head_width": 64, "patch_size": 32},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 128, "heads": 2, "layers": 2},
}
"""What takes about 10 ms a sample forward and back on one core: the pictures' cost shows beside it."""

MODEL_NAME = "benchmark-vit"
_WIDTH, _HEIGHT = 500, 375  # pixels


def write_speed_inputs(folder: Path, images: int) -> None:
    """Pictures, `pairs.csv` with a caption each for the peer, `rows-00000.parquet` with five for us, the model."""
    folder.mkdir(parents=True)
    paths = write_pictures(folder / "pictures", images, width=_WIDTH, height=_HEIGHT)
    columns = [next(raw_caption_column(images, block=images)).to_pylist()]
    whole = [next(caption_column(images, seed=seed, block=images)).to_pylist() for seed in range(len(CAPTIONERS))]
    # As long as in a training set: sheared to their first sentence.
    columns += [[_first_sentence(text) for text in texts] for texts in whole]
    sources = [RAW_SOURCE, *CAPTIONERS]
    rows = [_row(path, captions, sources) for path, captions in zip(paths, zip(*columns, strict=True), strict=True)]
    _write_rows(folder, rows)
    _write_table(
        folder / "pairs.csv", [(str(path), captions) for path, captions in zip(paths, columns[0], strict=True)]
    )
    (folder / f"{MODEL_NAME}.json").write_text(json.dumps(MODEL), encoding="utf-8")
    _write_resized(folder / "resized", rows)


def write_learning_inputs(folder: Path, scenes: int) -> None:
    """Scenes with a true caption each, for both sides; to measure on, as many others, at most 500, with five each."""
    folder.mkdir(parents=True)
    training = [(path, captions[0]) for path, captions in _scenes(folder / "training", scenes, seed=1).items()]
    _write_rows(folder, [_row(path, [caption], [RAW_SOURCE]) for path, caption in training])
    _write_table(folder / "pairs.csv", [(str(path), caption) for path, caption in training])
    evaluation = [
        {"image_id": image_identity(path.read_bytes()), "image": path.name, "path": str(path), "captions": captions}
        | {"phash": 0}
        for path, captions in _scenes(folder / "evaluation", min(500, scenes), seed=0).items()
    ]
    pq.write_table(pa.Table.from_pylist(evaluation, schema=EVALUATION_PAIRS), folder / "evaluation.parquet")


def _write_resized(folder: Path, rows: list[dict[str, Any]]) -> None:
    """What `resized_cache` keeps, here without a store around it."""
    from open_clip.transform import PreprocessCfg

    from caploom.training.images import ImageDecoder

    folder.mkdir()
    decoder = ImageDecoder(PreprocessCfg(size=MODEL["vision_cfg"]["image_size"]), draft=True)
    np.save(folder / PIXELS_FILE, np.stack([decoder.decode(row["path"], row["image_id"]) for row in rows]))
    ids = pa.table({"image_id": [row["image_id"] for row in rows]}, schema=RESIZED_IMAGES)
    pq.write_table(ids, folder / IMAGES_FILE)


def _first_sentence(text: str) -> str:
    start, end = RULES["first_sentence"].function(text)
    return text[start:end]


def _scenes(folder: Path, count: int, *, seed: int) -> dict[Path, list[str]]:
    """Scenes by their file; the split for evaluation is the one whose captions say what is there."""
    reader = PictureBookReader.model_validate(
        {"reader": "picture_book", "folder": str(folder), "split": "evaluation", "scenes": count, "seed": seed}
    )
    found: dict[Path, list[str]] = {}
    for row in reader.rows():
        if row.path and row.caption:
            found.setdefault(Path(row.path), []).append(row.caption)
    return found


def _row(path: Path, captions: Sequence[str], sources: Sequence[str]) -> dict[str, Any]:
    return {
        "image_id": image_identity(path.read_bytes()),
        "image": path.name,
        "path": str(path),
        "captions": list(captions),
        "sources": list(sources),
        "weights": [1 / len(captions)] * len(captions),
    }


def _write_rows(folder: Path, rows: list[dict[str, Any]]) -> None:
    pq.write_table(pa.Table.from_pylist(rows, schema=TRAINING_ROWS), folder / "rows-00000.parquet")


def _write_table(file: Path, pairs: Sequence[tuple[str, str]]) -> None:
    with file.open("w", encoding="utf-8", newline="") as stream:
        table = csv.writer(stream, delimiter="\t")
        table.writerow(["filepath", "title"])
        table.writerows(pairs)
