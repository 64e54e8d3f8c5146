"""The interface of a checkpoint for evaluation: embeddings of images and texts, and optionally scores of pairs."""

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np

COSINE = "cosine"
"""The scoring of a model that only has embeddings."""


class PairScorer(Protocol):
    """Scores pairs better and slower than a product of embeddings, so only for each query's best candidates.

    Attributes:
        label: the scoring's name in results.
        top: number of candidates per query that are scored again.
    """

    label: str
    top: int

    def score(
        self,
        paths: Sequence[str],
        image_ids: Sequence[str],
        texts: Sequence[str],
        image: np.ndarray,
        text: np.ndarray,
        progress: Callable[[int], None] | None = None,
    ) -> np.ndarray:
        """float32 (pairs,): scores of image[i] (an index into `paths`) and text[i] (into `texts`); higher is better."""
        ...


class Encoder(Protocol):
    """A checkpoint's encoders.

    Attributes:
        scoring: the name of comparing embeddings by their product.
        pair_scorer: re-ranks, where the model supports it.
    """

    scoring: str
    pair_scorer: PairScorer | None

    def embed_images(
        self, paths: Sequence[str], image_ids: Sequence[str], progress: Callable[[int], None] | None = None
    ) -> np.ndarray:
        """L2-normalized float32 (images, d); raises `EvaluationError` for an image that is gone or changed."""
        ...

    def embed_texts(self, texts: Sequence[str], progress: Callable[[int], None] | None = None) -> np.ndarray:
        """L2-normalized float32 (texts, d)."""
        ...
