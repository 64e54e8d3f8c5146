"""Zero-shot classification: an image belongs to the class with the most similar prompts (Radford et al., 2021).

The classifier's vector of a class is the mean of the L2-normalized embeddings of its prompts, normalized again, as in
open_clip's `build_zero_shot_classifier`. The rank of an image's class is 1 + the number of other classes that score at
least as high: ties count against the model. Scores are computed in float64, and those closer than 1e-12 are equal, so
that two classes of the same name always tie.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from caploom.errors import EvaluationError
from caploom.evaluation.classification_images import Classes
from caploom.evaluation.encoders import Encoder
from caploom.images.moves import STAYED, Moves
from caploom.storage.records import PREDICTIONS

METRICS_FILE = "metrics.json"
PREDICTIONS_FILE = "predictions.parquet"

_EQUAL = 1e-12
_TEXTS_AT_ONCE = 8_192  # prompts whose embeddings are in memory at once
_SCORES_AT_ONCE = 4_000_000  # 32 MB of float64


@dataclass(frozen=True)
class ClassificationMetrics:
    """A checkpoint's zero-shot classification; accuracies and chances are fractions, 0 to 1.

    Attributes:
        images: images of the set.
        classes: classes to choose among.
        templates: prompts per class.
        accuracy: by K, the fraction of images whose class is among the K best; K = 5 only where there are more classes.
        interval: by K, the 95 % interval of the accuracy (Wilson), treating the images as a sample.
        mean_per_class_recall: the accuracy at 1 within each class, averaged over the classes that have images.
        same_names: classes that share their name with another: none of their images can be found at 1.
    """

    images: int
    classes: int
    templates: int
    accuracy: dict[int, float]
    interval: dict[int, tuple[float, float]]
    mean_per_class_recall: float
    same_names: int

    def to_dict(self) -> dict[str, Any]:
        """The form in `metrics.json`."""
        result: dict[str, Any] = {
            "kind": "classification",
            "images": self.images,
            "classes": self.classes,
            "templates": self.templates,
        }
        for k, value in self.accuracy.items():
            result |= {f"top{k}": value, f"top{k}_interval": list(self.interval[k]), f"chance_top{k}": k / self.classes}
        result["mean_per_class_recall"] = self.mean_per_class_recall
        result["chance_mean_per_class_recall"] = 1 / self.classes
        return result | ({"classes_with_the_same_name": self.same_names} if self.same_names else {})


def prompts(templates: str | Sequence[str]) -> list[Callable[[str], str]]:
    """Templates as functions of a class's name; `openai-imagenet` and `simple-imagenet` are open_clip's."""
    if isinstance(templates, str):
        from open_clip import zero_shot_metadata  # takes seconds, because it imports torch

        named = {
            "openai-imagenet": zero_shot_metadata.OPENAI_IMAGENET_TEMPLATES,
            "simple-imagenet": zero_shot_metadata.SIMPLE_IMAGENET_TEMPLATES,
        }
        return list(named[templates])
    # Not `format`: a name may have braces, and a template's other braces are its own.
    return [partial(template.replace, "{}") for template in templates]


def text_classifier(
    encoder: Encoder,
    names: Sequence[str],
    templates: Sequence[Callable[[str], str]],
    progress: Callable[[int], None] | None = None,
) -> np.ndarray:
    """One L2-normalized vector per class: float64 of shape (classes, d). `progress` gets the prompts done."""
    step = max(1, _TEXTS_AT_ONCE // len(templates))
    blocks = []
    # Each name once: embedded in two batches, the same text can differ in its last bits and would not tie.
    different = list(dict.fromkeys(names))
    for start in range(0, len(different), step):
        block = different[start : start + step]
        texts = [template(name) for name in block for template in templates]
        embeddings = encoder.embed_texts(texts).astype(np.float64)
        mean = embeddings.reshape(len(block), len(templates), -1).mean(axis=1)
        blocks.append(mean / np.linalg.norm(mean, axis=1, keepdims=True))
        if progress is not None:
            progress((start + len(block)) * len(templates))
    position = {name: number for number, name in enumerate(different)}
    return np.concatenate(blocks)[[position[name] for name in names]]


def label_ranks(images: np.ndarray, classifier: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, ...]:
    """Each image's rank of its class, best class, and the scores of both. Shapes (N,); labels int (N,).

    Of classes that tie for the best, the first that is not the image's own is the prediction.
    """
    ranks = np.empty(len(images), np.int32)
    best = np.empty(len(images), np.int64)
    label_scores, best_scores = np.empty(len(images)), np.empty(len(images))
    step = max(1, _SCORES_AT_ONCE // len(classifier))
    for start in range(0, len(images), step):
        block = slice(start, min(start + step, len(images)))
        scores = images[block].astype(np.float64) @ classifier.T
        rows = np.arange(len(scores))
        own = scores[rows, labels[block]]
        at_least = scores >= own[:, None] - _EQUAL
        ranks[block] = at_least.sum(axis=1)  # the class itself is among them
        scores[rows, labels[block]] -= _EQUAL  # a tie is lost
        best[block] = scores.argmax(axis=1)
        label_scores[block], best_scores[block] = own, scores.max(axis=1)
    return ranks, best, label_scores, best_scores


def classify(
    encoder: Encoder,
    images: Path,
    classes: Classes,
    templates: str | Sequence[str],
    *,
    out: Path,
    progress: Callable[[int, int], None] | None = None,
    moves: Moves = STAYED,
) -> ClassificationMetrics:
    """Measure and write `metrics.json` and `predictions.parquet` (schema PREDICTIONS) into the folder `out`.

    `images` is a Parquet file of schema CLASSIFICATION_IMAGES, `moves` says where its images are now, and `progress`
    gets embeddings done and in total. Raises `EvaluationError` when an image is gone or an embedding is not a number.
    """
    table = moves.of_table(pq.read_table(images))
    paths, image_ids = table["path"].to_pylist(), table["image_id"].to_pylist()
    labels = table["label"].to_numpy().astype(np.int64)
    asked = prompts(templates)
    texts = len(set(classes.names)) * len(asked)

    def report(done: int) -> None:
        if progress is not None:
            progress(done, texts + len(paths))

    classifier = text_classifier(encoder, classes.names, asked, report)
    embeddings = encoder.embed_images(paths, image_ids, progress=lambda done: report(texts + done))
    for what, values in (("class's prompts", classifier), ("image", embeddings)):
        wrong = np.flatnonzero(~np.isfinite(values).all(axis=1))
        if len(wrong):
            raise EvaluationError(
                f"The embedding of {what} number {wrong[0] + 1} is not a number (and {len(wrong) - 1:,} others); the "
                "model's training failed: retrain it with a lower learning rate."
            )
    ranks, best, label_scores, best_scores = label_ranks(embeddings, classifier, labels)
    names = np.asarray(classes.labels, dtype=object)
    columns = [table["image_id"], table["image"], names[labels], names[best], ranks]
    columns += [label_scores.astype(np.float32), best_scores.astype(np.float32)]
    arrays = dict(zip(PREDICTIONS.names, columns, strict=True))
    pq.write_table(pa.table(arrays, schema=PREDICTIONS), out / PREDICTIONS_FILE, compression="zstd")
    metrics = _metrics(ranks, labels, classes, len(asked))
    (out / METRICS_FILE).write_text(json.dumps(metrics.to_dict(), indent=2) + "\n", encoding="utf-8")
    return metrics


def wilson_interval(found: int, of: int, confidence: float = 0.95) -> tuple[float, float]:
    """The Wilson score interval of a fraction, 0 to 1."""
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    share, spread = found / of, z * z / of
    middle = share + spread / 2
    reach = z * np.sqrt(share * (1 - share) / of + spread / (4 * of))
    return float(max(0.0, (middle - reach) / (1 + spread))), float(min(1.0, (middle + reach) / (1 + spread)))


def _metrics(ranks: np.ndarray, labels: np.ndarray, classes: Classes, templates: int) -> ClassificationMetrics:
    count = len(classes.labels)
    found = {k: int((ranks <= k).sum()) for k in (1, 5) if k < count}
    of_class = np.bincount(labels, minlength=count)
    right = np.bincount(labels[ranks == 1], minlength=count)
    met = of_class > 0
    return ClassificationMetrics(
        images=len(ranks),
        classes=count,
        templates=templates,
        accuracy={k: number / len(ranks) for k, number in found.items()},
        interval={k: wilson_interval(number, len(ranks)) for k, number in found.items()},
        mean_per_class_recall=float((right[met] / of_class[met]).mean()),
        same_names=sum(classes.names.count(name) > 1 for name in classes.names),
    )
