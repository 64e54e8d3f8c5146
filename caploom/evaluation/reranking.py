"""Re-ranking: the best candidates of each query are ordered again by a slower, better score (ALBEF, BLIP)."""

from collections.abc import Callable, Sequence

import numpy as np

from caploom.evaluation.encoders import PairScorer
from caploom.evaluation.retrieval import Ranks, exact_scores

_SCORES_AT_ONCE = 8_000_000


def top_candidates(queries: np.ndarray, candidates: np.ndarray, count: int) -> np.ndarray:
    """The `count` best candidates of each query by the product of their embeddings: int64 (queries, count)."""
    found = np.empty((len(queries), count), np.int64)
    step = max(1, _SCORES_AT_ONCE // len(candidates))
    for start in range(0, len(queries), step):
        scores = queries[start : start + step] @ candidates.T
        found[start : start + step] = np.argpartition(-scores, count - 1, axis=1)[:, :count]
    return found


def reranked(
    scorer: PairScorer,
    ranks: Ranks,
    images: np.ndarray,
    texts: np.ndarray,
    owners: np.ndarray,
    *,
    paths: Sequence[str],
    image_ids: Sequence[str],
    captions: Sequence[str],
    progress: Callable[[int], None] | None = None,
) -> Ranks:
    """Both directions' ranks when each query's best candidates are ordered by the scorer's score plus the embeddings'.

    They stay ahead of all other candidates, which keep their order; ties count against the model, as everywhere.
    `ranks` are those of the embeddings alone. `progress` is called with the number of pairs scored.
    """
    of_images = top_candidates(images, texts, min(scorer.top, len(texts)))
    of_texts = top_candidates(texts, images, min(scorer.top, len(images)))
    image = np.concatenate([np.repeat(np.arange(len(images)), of_images.shape[1]), of_texts.ravel()])
    text = np.concatenate([of_images.ravel(), np.repeat(np.arange(len(texts)), of_texts.shape[1])])
    # A pair that is among the best of both its sides is scored once.
    pairs, position = np.unique(image * len(texts) + text, return_inverse=True)
    image, text = np.divmod(pairs, len(texts))
    scores = scorer.score(paths, image_ids, captions, image, text, progress).astype(np.float64)
    scores = (scores + exact_scores(images, texts, image, text))[position]
    scores_of_images = scores[: of_images.size].reshape(of_images.shape)
    scores_of_texts = scores[of_images.size :].reshape(of_texts.shape)
    return Ranks(
        _ranks(ranks.images, scores_of_images, owners[of_images] == np.arange(len(images))[:, None]),
        _ranks(ranks.texts, scores_of_texts, of_texts == owners[:, None]),
    )


def _ranks(before: np.ndarray, scores: np.ndarray, positive: np.ndarray) -> np.ndarray:
    """Ranks among the re-scored candidates; unchanged, and behind them, where no positive is among them.

    For a positive that ties for the last position among them, the tie counts against it, so it is not among them.
    """
    best = np.where(positive, scores, -np.inf).max(axis=1, keepdims=True)
    ranks = 1 + np.count_nonzero(~positive & (scores >= best), axis=1)
    among = positive.any(axis=1) & (before <= scores.shape[1])
    found: np.ndarray = np.where(among, ranks, np.maximum(before, scores.shape[1] + 1))
    return found
