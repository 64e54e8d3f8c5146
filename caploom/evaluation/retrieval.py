"""Ranks of image-text retrieval, exact and in bounded memory: counted in blocks, without a full similarity matrix.

The rank of a query is that of its best positive: 1 + the number of candidates that are not positives of the query and
score at least as high. So ties count against the model, in any order of the candidates, and positives never count
against each other. Without ties this is Recall@K as in Karpathy and Fei-Fei (2015) and clip-benchmark: a query is found
at K when any of its positives is among the K best; image-to-text is averaged over images, text-to-image over texts.

A matrix product rounds the same dot product differently at different positions, so equal embeddings would rarely tie.
Here each score that differs from the positive's by no more than rounding is computed again in float64, term by term in
one order: ties are exact, and no block size, thread or library changes a rank.
"""

from dataclasses import dataclass

import numpy as np

from caploom.errors import EvaluationError

_IMAGES_AT_ONCE, _TEXTS_AT_ONCE = 240, 4096  # a block of 4 MB stays in a processor's cache; 240 counts fit a byte
_PAIRS_AT_ONCE = 4096  # pairs computed again at once
_ROUNDING = 2e-6  # of a float32 product of unit vectors of up to 1,024 dimensions; ten times the observed error


@dataclass(frozen=True)
class Ranks:
    """Ranks of both directions, int64; 1 is the best.

    Attributes:
        images: rank of each image's best text, (images,).
        texts: rank of each text's image, (texts,).
    """

    images: np.ndarray
    texts: np.ndarray


def retrieval_ranks(
    images: np.ndarray,
    texts: np.ndarray,
    owners: np.ndarray,
    *,
    images_at_once: int = _IMAGES_AT_ONCE,
    texts_at_once: int = _TEXTS_AT_ONCE,
) -> Ranks:
    """The ranks of both directions, in one pass over the similarities.

    Args:
        images: embeddings of shape (images, d); the score is the dot product.
        texts: embeddings of shape (texts, d).
        owners: int64 (texts,), the image of each text; each image has at least one.
        images_at_once: rows of a block, 255 at most.
        texts_at_once: columns of a block.

    Raises:
        EvaluationError: if there is no image, an image has no text, or an embedding is not finite.

    Example:
        >>> images = np.array([[1.0, 0.0], [0.0, 1.0]])
        >>> texts = np.array([[1.0, 0.0], [0.2, 1.0], [0.9, 0.1]])  # the last belongs to the second image and misses it
        >>> ranks = retrieval_ranks(images, texts, owners=np.array([0, 1, 1]))
        >>> ranks.images.tolist(), ranks.texts.tolist()
        ([1, 1], [1, 1, 2])
    """
    _check(images, texts, owners)
    images, texts = np.ascontiguousarray(images, np.float32), np.ascontiguousarray(texts, np.float32)
    counting = _Counting(images, texts, owners)
    for start in range(0, len(images), images_at_once):
        rows = slice(start, min(start + images_at_once, len(images)))
        for first in range(0, len(texts), texts_at_once):
            counting.block(rows, slice(first, min(first + texts_at_once, len(texts))))
    return Ranks(counting.image_ranks, counting.text_ranks)


class _Counting:
    """Counts, block by block, the candidates that come before each query's best positive."""

    def __init__(self, images: np.ndarray, texts: np.ndarray, owners: np.ndarray) -> None:
        self._images, self._texts, self._owners = images, texts, owners
        self._positives = exact_scores(images, texts, owners, np.arange(len(texts)))
        self._best = np.full(len(images), -np.inf)
        np.maximum.at(self._best, owners, self._positives)
        band = _ROUNDING * _longest(images) * _longest(texts)
        # In the product's own type, and one step outwards, so that rounding the limits loses nothing.
        self._image_limits = _limits(self._best, band)
        self._text_limits = _limits(self._positives, band)
        self.image_ranks = np.ones(len(images), np.int64)
        self.text_ranks = np.ones(len(texts), np.int64)

    def block(self, rows: slice, columns: slice) -> None:
        scores = self._images[rows] @ self._texts[columns].T
        low, high = (limits[rows][:, None] for limits in self._image_limits)
        above, at_least = scores > high, scores >= low
        before = _count_rows(above)
        self.image_ranks[rows] += before
        self._settle_images(scores, rows, columns, np.flatnonzero(_count_rows(at_least) > before))
        low, high = (limits[columns] for limits in self._text_limits)
        np.greater(scores, high, out=above)
        np.greater_equal(scores, low, out=at_least)
        before = _count_columns(above)
        self.text_ranks[columns] += before
        self._settle_texts(scores, rows, columns, np.flatnonzero(_count_columns(at_least) > before))

    def _settle_images(self, scores: np.ndarray, rows: slice, columns: slice, unsettled: np.ndarray) -> None:
        """Count, in these rows of the block, the candidates within rounding that really score at least as high."""
        if len(unsettled) == 0:
            return
        images = rows.start + unsettled
        low, high = (limits[images][:, None] for limits in self._image_limits)
        near = scores[unsettled]
        position, text = np.nonzero((near >= low) & (near <= high))
        image, text = images[position], columns.start + text
        others = self._owners[text] != image
        image, text = image[others], text[others]
        at_least = exact_scores(self._images, self._texts, image, text) >= self._best[image]
        np.add.at(self.image_ranks, image[at_least], 1)

    def _settle_texts(self, scores: np.ndarray, rows: slice, columns: slice, unsettled: np.ndarray) -> None:
        """The same for these columns."""
        if len(unsettled) == 0:
            return
        texts = columns.start + unsettled
        low, high = (limits[texts] for limits in self._text_limits)
        near = scores[:, unsettled]
        image, position = np.nonzero((near >= low) & (near <= high))
        image, text = rows.start + image, texts[position]
        others = self._owners[text] != image
        image, text = image[others], text[others]
        at_least = exact_scores(self._images, self._texts, image, text) >= self._positives[text]
        np.add.at(self.text_ranks, text[at_least], 1)


def exact_scores(images: np.ndarray, texts: np.ndarray, image: np.ndarray, text: np.ndarray) -> np.ndarray:
    """Dot products of images[image] and texts[text], float64 (pairs,): always the same for the same two vectors."""
    scores = np.empty(len(image))
    for start in range(0, len(image), _PAIRS_AT_ONCE):
        part = slice(start, start + _PAIRS_AT_ONCE)
        # Products of float32 are exact in float64; the sum along a row has one order, for every row.
        scores[part] = np.multiply(images[image[part]], texts[text[part]], dtype=np.float64).sum(axis=1)
    return scores


def _count_rows(mask: np.ndarray) -> np.ndarray:
    # Row by row, since counting along an axis first converts everything to integers.
    return np.fromiter(map(np.count_nonzero, mask), np.int64, len(mask))


def _count_columns(mask: np.ndarray) -> np.ndarray:
    counts: np.ndarray = np.add.reduce(mask.view(np.uint8), axis=0, dtype=np.uint8)
    return counts


def _limits(scores: np.ndarray, band: float) -> tuple[np.ndarray, np.ndarray]:
    low = np.nextafter((scores - band).astype(np.float32), np.float32(-np.inf))
    high = np.nextafter((scores + band).astype(np.float32), np.float32(np.inf))
    return low, high


def _longest(embeddings: np.ndarray) -> float:
    return float(np.sqrt(np.einsum("ij,ij->i", embeddings, embeddings).max()))


def _check(images: np.ndarray, texts: np.ndarray, owners: np.ndarray) -> None:
    if len(images) == 0:
        raise EvaluationError("The evaluation set has no images; retrieval cannot be measured.")
    counts = np.bincount(owners, minlength=len(images))
    empty = np.flatnonzero(counts == 0)
    if len(empty):
        raise EvaluationError(
            f"{len(empty):,} of the {len(images):,} evaluation images have no caption (the first is image number "
            f"{empty[0] + 1}); caption or remove them."
        )
    for what, embeddings in (("image", images), ("text", texts)):
        wrong = np.flatnonzero(~np.isfinite(embeddings).all(axis=1))
        if len(wrong):
            raise EvaluationError(
                f"The embedding of {what} number {wrong[0] + 1} is not finite (and {len(wrong) - 1:,} others); "
                "the model's training failed: retrain it with a lower learning rate."
            )
