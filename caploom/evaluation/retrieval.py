"""Image-text retrieval metrics, exact and in bounded memory: ranks by counting, never the whole similarity matrix.

The rank of a query is that of its best positive: 1 + the number of candidates that are not positives of the query and
score at least as much. So an equal score counts against us, which no order of the candidates can flatter, and positives
never count against each other. Without ties this is Recall@K as Karpathy and Fei-Fei (2015) and clip-benchmark have it:
a query is found at K when any of its positives is among the K best; image-to-text is averaged over images,
text-to-image over texts.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from caploom.errors import EvaluationError

RECALL_AT = (1, 5, 10)

_BLOCK_SCORES = 8_000_000  # similarities held at once: 32 MB of float32


@dataclass(frozen=True)
class Positives:
    """Which candidates are right for each query: those of query q are `candidates[offsets[q]:offsets[q + 1]]`.

    Attributes:
        offsets: int64 of shape (queries + 1,).
        candidates: int64 indices of candidates, of shape (offsets[-1],).
    """

    offsets: np.ndarray
    candidates: np.ndarray

    @classmethod
    def of_lists(cls, lists: Sequence[Sequence[int]]) -> "Positives":
        """From one list of candidate indices a query."""
        offsets = np.zeros(len(lists) + 1, dtype=np.int64)
        np.cumsum([len(positives) for positives in lists], out=offsets[1:])
        flat = [candidate for positives in lists for candidate in positives]
        return cls(offsets, np.asarray(flat, dtype=np.int64))

    @property
    def counts(self) -> np.ndarray:
        """Positives of each query, int64 of shape (queries,)."""
        return np.diff(self.offsets)


def caption_positives(captions_per_image: Sequence[int]) -> tuple[Positives, Positives]:
    """Positives of both directions when the captions lie in the order of their images: (image to text, text to image).

    Raises `EvaluationError` when an image has no captions.
    """
    counts = np.asarray(captions_per_image, dtype=np.int64)
    if len(counts) == 0:
        raise EvaluationError("The evaluation set has no images; retrieval cannot be measured.")
    empty = np.flatnonzero(counts == 0)
    if len(empty):
        raise EvaluationError(
            f"{len(empty):,} of the {len(counts):,} evaluation images have no caption (the first is image number "
            f"{empty[0] + 1}); caption or remove them."
        )
    offsets = np.concatenate([[0], np.cumsum(counts)])
    texts = int(offsets[-1])
    image_to_text = Positives(offsets, np.arange(texts))
    text_to_image = Positives(np.arange(texts + 1), np.repeat(np.arange(len(counts)), counts))
    return image_to_text, text_to_image


def best_positive_ranks(
    queries: np.ndarray, candidates: np.ndarray, positives: Positives, *, block_scores: int = _BLOCK_SCORES
) -> np.ndarray:
    """The rank of each query's best positive, int64 of shape (queries,), 1 being the best.

    Args:
        queries: embeddings of shape (queries, d); the score is the dot product.
        candidates: embeddings of shape (candidates, d).
        positives: at least one for each query.
        block_scores: similarities held at once.

    Raises:
        EvaluationError: if an embedding is not a number or a query has no positive.
    """
    for what, embeddings in (("query", queries), ("candidate", candidates)):
        wrong = np.flatnonzero(~np.isfinite(embeddings).all(axis=1))
        if len(wrong):
            raise EvaluationError(
                f"The embedding of {what} number {wrong[0] + 1} is not finite (and {len(wrong) - 1:,} others); "
                "the model's training went wrong: train it again with a lower learning rate."
            )
    if (positives.counts == 0).any():
        raise EvaluationError(f"Query number {np.argmin(positives.counts) + 1} has no positive among the candidates.")
    ranks = np.empty(len(queries), dtype=np.int64)
    rows = max(1, block_scores // max(1, len(candidates)))
    for start in range(0, len(queries), rows):
        stop = min(start + rows, len(queries))
        scores = queries[start:stop] @ candidates.T
        offsets = positives.offsets[start : stop + 1] - positives.offsets[start]
        columns = positives.candidates[positives.offsets[start] : positives.offsets[stop]]
        of_query = np.repeat(np.arange(stop - start), np.diff(offsets))
        # Read from the same product as what they are compared with: another order of summing would break exact ties.
        positive_scores = scores[of_query, columns]
        best = np.maximum.reduceat(positive_scores, offsets[:-1])
        at_least = np.count_nonzero(scores >= best[:, None], axis=1)
        at_least_positives = np.add.reduceat((positive_scores >= best[of_query]).astype(np.int64), offsets[:-1])
        ranks[start:stop] = 1 + at_least - at_least_positives
    return ranks


def recall_at(ranks: np.ndarray, k: int) -> float:
    """The share (0 to 1) of queries whose best positive is among the K best candidates."""
    return float(np.mean(ranks <= k))


def chance_recall_at(k: int, positives_per_query: np.ndarray, candidates: int) -> float:
    """The Recall@K to expect of candidates in random order, 0 to 1.

    A query with p positives among n candidates misses all of them with probability C(n-p, k) / C(n, k).

    Raises:
        EvaluationError: if K is above the number of candidates.
    """
    if k > candidates:
        raise EvaluationError(
            f"Recall@{k} needs at least {k} candidates, and this evaluation set has {candidates}; enlarge the set."
        )
    counts, inverse = np.unique(positives_per_query, return_inverse=True)
    misses = np.ones(len(counts))
    for drawn in range(k):
        misses *= np.maximum(candidates - counts - drawn, 0) / (candidates - drawn)
    return float(np.mean((1 - misses)[inverse]))


@dataclass(frozen=True)
class DirectionMetrics:
    """Retrieval in one direction.

    Attributes:
        recall: Recall@K, 0 to 1, by K.
        chance: the Recall@K of candidates in random order, 0 to 1, by K.
        median_rank: of the queries' best positives; 1 is perfect.
        mean_rank: likewise.
    """

    recall: dict[int, float]
    chance: dict[int, float]
    median_rank: float
    mean_rank: float

    def to_dict(self) -> dict[str, float]:
        """Flat, with the keys `recall@1`, `chance@1` and so on."""
        return {
            **{f"recall@{k}": value for k, value in self.recall.items()},
            **{f"chance@{k}": value for k, value in self.chance.items()},
            "median_rank": self.median_rank,
            "mean_rank": self.mean_rank,
        }


def direction_metrics(ranks: np.ndarray, positives_per_query: np.ndarray, candidates: int) -> DirectionMetrics:
    """Recall at `RECALL_AT` beside chance, and the ranks' median and mean. Raises `EvaluationError` as chance does."""
    chance = {k: chance_recall_at(k, positives_per_query, candidates) for k in RECALL_AT}
    recall = {k: recall_at(ranks, k) for k in RECALL_AT}
    return DirectionMetrics(recall, chance, float(np.median(ranks)), float(np.mean(ranks)))
