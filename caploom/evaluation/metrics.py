"""Metrics from ranks: Recall@K with chance and intervals, median and mean rank, RSUM, mean rank variance."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from caploom.errors import EvaluationError
from caploom.evaluation.intervals import share_interval

RECALL_AT = (1, 5, 10)

DIRECTIONS = ("image_to_text", "text_to_image")


@dataclass(frozen=True)
class DirectionMetrics:
    """Retrieval in one direction; recalls are 0 to 1.

    Attributes:
        recall: Recall@K by K.
        chance: the Recall@K of candidates in random order, by K.
        interval: the 95 % bootstrap interval over queries of each Recall@K, by K.
        median_rank: of the queries' best positives; 1 is perfect.
        mean_rank: likewise.
    """

    recall: dict[int, float]
    chance: dict[int, float]
    interval: dict[int, tuple[float, float]]
    median_rank: float
    mean_rank: float

    def to_dict(self) -> dict[str, Any]:
        """Flat, with the keys `recall@1`, `chance@1`, `interval@1` and so on."""
        return {
            **{f"recall@{k}": value for k, value in self.recall.items()},
            **{f"chance@{k}": value for k, value in self.chance.items()},
            **{f"interval@{k}": list(value) for k, value in self.interval.items()},
            "median_rank": self.median_rank,
            "mean_rank": self.mean_rank,
        }


@dataclass(frozen=True)
class RetrievalMetrics:
    """A checkpoint's retrieval on one evaluation set, with one scoring of pairs; recalls are 0 to 1.

    Attributes:
        scoring: `cosine` for CLIP; `ITC`, or that with re-ranking, for BLIP.
        images: images of the set.
        captions: captions of the set.
        folds: parts that are searched separately and averaged over; 1 where the set is searched as a whole.
        image_to_text: averaged over images.
        text_to_image: averaged over captions.
        mean_rank_variance: see the function of that name.
    """

    scoring: str
    images: int
    captions: int
    folds: int
    image_to_text: DirectionMetrics
    text_to_image: DirectionMetrics
    mean_rank_variance: float

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
        """Sum of the six recalls in percent, as papers report it: at most 600."""
        return 100 * sum([*self.image_to_text.recall.values(), *self.text_to_image.recall.values()])

    def to_dict(self) -> dict[str, Any]:
        """The form in `metrics.json`."""
        return {
            "kind": "retrieval",
            "scoring": self.scoring,
            "images": self.images,
            "captions": self.captions,
            "folds": self.folds,
            "image_to_text": self.image_to_text.to_dict(),
            "text_to_image": self.text_to_image.to_dict(),
            "mean_recall@1": self.mean_recall_at_1,
            "mean_chance@1": self.mean_chance_at_1,
            "rsum": self.rsum,
            "mean_recall": self.rsum / 600,
            "mean_rank_variance": self.mean_rank_variance,
        }


def direction_metrics(
    ranks: Sequence[np.ndarray], positives: Sequence[np.ndarray], candidates: Sequence[int]
) -> DirectionMetrics:
    """The metrics of one direction, each recall averaged over the folds.

    Args:
        ranks: for each fold, the ranks of its queries.
        positives: for each fold, the number of right candidates of each query.
        candidates: for each fold, the number of candidates.

    Raises:
        EvaluationError: if K is above the number of candidates.
    """
    every = np.concatenate(ranks)
    recall = {k: float(np.mean([recall_at(of_fold, k) for of_fold in ranks])) for k in RECALL_AT}
    chance = {
        k: float(np.mean([chance_recall_at(k, p, n) for p, n in zip(positives, candidates, strict=True)]))
        for k in RECALL_AT
    }
    interval = {k: share_interval(int(np.count_nonzero(every <= k)), len(every)) for k in RECALL_AT}
    return DirectionMetrics(recall, chance, interval, float(np.median(every)), float(np.mean(every)))


def recall_at(ranks: np.ndarray, k: int) -> float:
    """The fraction (0 to 1) of queries whose best positive is among the K best candidates."""
    return float(np.mean(ranks <= k))


def chance_recall_at(k: int, positives_per_query: np.ndarray, candidates: int) -> float:
    """The expected Recall@K of candidates in random order, 0 to 1.

    A query with p positives among n candidates misses all of them with probability C(n-p, k) / C(n, k).

    Raises:
        EvaluationError: if K is above the number of candidates.
    """
    if k > candidates:
        raise EvaluationError(
            f"Recall@{k} needs at least {k} candidates, but this evaluation set has {candidates}; enlarge the set."
        )
    counts, inverse = np.unique(positives_per_query, return_inverse=True)
    misses = np.ones(len(counts))
    for drawn in range(k):
        misses *= np.maximum(candidates - counts - drawn, 0) / (candidates - drawn)
    return float(np.mean((1 - misses)[inverse]))


def mean_rank_variance(text_ranks: np.ndarray, owners: np.ndarray) -> float:
    """The variance of the ranks of an image's captions, averaged over images (MRV).

    After 1-to-K (CCRK, Nie et al., 2024), where the captions are an instance's languages. `text_ranks` (texts,) are
    those of text to image, `owners` (texts,) the image of each. An image with one caption has a variance of 0.
    """
    counts = np.bincount(owners)
    sums, squares = (np.bincount(owners, weights=values.astype(np.float64)) for values in (text_ranks, text_ranks**2))
    captioned = counts > 0
    means = sums[captioned] / counts[captioned]
    return float(np.mean(np.maximum(squares[captioned] / counts[captioned] - means**2, 0)))
