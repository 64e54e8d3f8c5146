"""Measures a checkpoint's image-text retrieval on an evaluation set, and writes the metrics and every query's rank."""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from caploom.errors import EvaluationError
from caploom.evaluation.retrieval import DirectionMetrics, best_positive_ranks, caption_positives, direction_metrics
from caploom.records import EVALUATION_PAIRS, RANKS

METRICS_FILE = "metrics.json"
RANKS_FILE = "ranks.parquet"


@dataclass(frozen=True)
class RetrievalMetrics:
    """A checkpoint's retrieval on one evaluation set; recalls and chances are shares, 0 to 1.

    Attributes:
        images: images of the set.
        captions: captions of the set.
        image_to_text: averaged over images.
        text_to_image: averaged over captions.
        seconds: wall-clock time of embedding and ranking.
    """

    images: int
    captions: int
    image_to_text: DirectionMetrics
    text_to_image: DirectionMetrics
    seconds: float

    @property
    def mean_recall_at_1(self) -> float:
        """Mean of both directions' Recall@1, 0 to 1."""
        return (self.image_to_text.recall[1] + self.text_to_image.recall[1]) / 2

    @property
    def mean_chance_at_1(self) -> float:
        """Mean of both directions' chance level of Recall@1, 0 to 1."""
        return (self.image_to_text.chance[1] + self.text_to_image.chance[1]) / 2

    @property
    def rsum(self) -> float:
        """Sum of the six recalls in percent, as the field reports it: at most 600."""
        return 100 * sum([*self.image_to_text.recall.values(), *self.text_to_image.recall.values()])

    def to_dict(self) -> dict[str, Any]:
        """As it is written to `metrics.json`."""
        return {
            "images": self.images,
            "captions": self.captions,
            "image_to_text": self.image_to_text.to_dict(),
            "text_to_image": self.text_to_image.to_dict(),
            "mean_recall@1": self.mean_recall_at_1,
            "mean_chance@1": self.mean_chance_at_1,
            "rsum": self.rsum,
            "seconds": self.seconds,
        }


def evaluate_checkpoint(
    checkpoint: Path,
    pairs: Path,
    *,
    out: Path,
    device: str = "auto",
    progress: Callable[[int, int], None] | None = None,
) -> RetrievalMetrics:
    """Embed the evaluation pairs, rank both ways, and write `metrics.json` and `ranks.parquet` into the folder `out`.

    Args:
        checkpoint: a folder that the trainer wrote.
        pairs: a Parquet file of `EVALUATION_PAIRS`.
        out: an existing folder; the caller commits it.
        device: `auto` is the GPU when there is one, else the CPU.
        progress: called with (images and captions embedded, all of them).

    Raises:
        EvaluationError: if retrieval cannot be measured on these pairs.
        StoreError: if the checkpoint is not whole.
    """
    # torch takes seconds to import; whoever only reads metrics must not pay for it.
    from caploom.evaluation.embeddings import embed_images, embed_texts
    from caploom.training.clip_model import load_checkpoint, resolve_device

    started = time.perf_counter()
    image_ids, paths, captions = _read_pairs(pairs)
    image_to_text, text_to_image = caption_positives([len(texts) for texts in captions])
    texts = [text for of_image in captions for text in of_image]
    everything = len(paths) + len(texts)

    def report(done: int) -> None:
        if progress is not None:
            progress(done, everything)

    model, on = load_checkpoint(checkpoint), resolve_device(device)
    images = embed_images(model, paths, image_ids, device=on, progress=report)
    words = embed_texts(model, texts, device=on, progress=lambda done: report(len(paths) + done))
    image_ranks = best_positive_ranks(images, words, image_to_text)
    text_ranks = best_positive_ranks(words, images, text_to_image)
    metrics = RetrievalMetrics(
        images=len(paths),
        captions=len(texts),
        image_to_text=direction_metrics(image_ranks, image_to_text.counts, len(texts)),
        text_to_image=direction_metrics(text_ranks, text_to_image.counts, len(paths)),
        seconds=time.perf_counter() - started,
    )
    text_ids = [
        f"{image}#{index}" for image, texts in zip(image_ids, captions, strict=True) for index in range(len(texts))
    ]
    pq.write_table(_ranks_table(image_ids, image_ranks, text_ids, text_ranks), out / RANKS_FILE)
    (out / METRICS_FILE).write_text(json.dumps(metrics.to_dict(), indent=2) + "\n", encoding="utf-8")
    return metrics


def _read_pairs(pairs: Path) -> tuple[list[str], list[str], list[list[str]]]:
    columns = ["image_id", "path", "captions"]
    try:
        table = pq.read_table(pairs, columns=columns)
        table = table.cast(pa.schema([EVALUATION_PAIRS.field(name) for name in columns]))
    except (OSError, pa.ArrowException) as error:
        raise EvaluationError(f"{pairs}: these are no evaluation pairs ({str(error).splitlines()[0]}).") from None
    image_ids: list[str] = table["image_id"].to_pylist()
    paths: list[str] = table["path"].to_pylist()
    captions: list[list[str]] = table["captions"].to_pylist()
    for path, texts in zip(paths, captions, strict=True):
        if not texts:
            raise EvaluationError(
                f"{path}: this evaluation image has no caption; caption it or remove it from the set."
            )
    return image_ids, paths, captions


def _ranks_table(
    image_ids: list[str], image_ranks: np.ndarray, text_ids: list[str], text_ranks: np.ndarray
) -> pa.Table:
    directions = ["image_to_text"] * len(image_ids) + ["text_to_image"] * len(text_ids)
    ranks = np.concatenate([image_ranks, text_ranks]).astype(np.int32)
    return pa.table({"direction": directions, "query": image_ids + text_ids, "rank": ranks}, schema=RANKS)
