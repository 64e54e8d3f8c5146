"""Whether one recipe retrieves better than another: mean Recall@1 over the same images, seeds taken together.

The captions of an image rise and fall together, so the unit is the image and not the query: its own hit as a query,
and its captions' hits. The interval is that of the mean over images (clusters), by the delta method.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import erfc, sqrt
from typing import Any

import numpy as np

from caploom.questions.results.arms import Ranks

_WIDTH = 1.959963984540054  # standard errors on each side of 95 %


@dataclass(frozen=True)
class Difference:
    """A mean Recall@1 minus another's, -1 to 1; with its 95 % interval and two-sided p-value over the images."""

    difference: float
    low: float
    high: float
    p_value: float
    images: int

    @property
    def signed(self) -> str:
        """In points of Recall@1, with the interval: `+1.2 (-0.4 to +2.8)`."""
        return f"{100 * self.difference:+.1f} ({100 * self.low:+.1f} to {100 * self.high:+.1f})"

    @property
    def p_text(self) -> str:
        """`0.0312`, `under 0.0001`."""
        return "under 0.0001" if self.p_value < 0.0001 else f"{self.p_value:.4f}"

    def to_dict(self) -> dict[str, Any]:
        """As `results.json` has it."""
        return asdict(self)


@dataclass(frozen=True)
class Hits:
    """How often each query found its own at the first place, averaged over a recipe's seeds: (N,) and (T,), 0 to 1."""

    image_ids: np.ndarray
    text_ids: np.ndarray
    images: np.ndarray
    texts: np.ndarray
    owners: np.ndarray


def hits_of(seeds: Sequence[Ranks]) -> Hits:
    """Recall@1 of single queries over the seeds of one recipe, which were all asked the same."""
    first = seeds[0]
    return Hits(
        first.image_ids,
        first.text_ids,
        np.mean([each.of_images == 1 for each in seeds], axis=0),
        np.mean([each.of_texts == 1 for each in seeds], axis=0),
        first.owners,
    )


def difference(first: Hits, second: Hits) -> Difference | None:
    """`first` minus `second`; None where they were not asked the same queries."""
    return mean_difference([(first, second)])


def mean_difference(pairs: Sequence[tuple[Hits, Hits]]) -> Difference | None:
    """The mean of several such differences on the same queries: the effect of what all pairs differ in."""
    asked = pairs[0][0]
    for each in (side for pair in pairs for side in pair):
        if not (np.array_equal(each.image_ids, asked.image_ids) and np.array_equal(each.text_ids, asked.text_ids)):
            return None
    images = np.mean([one.images - other.images for one, other in pairs], axis=0)
    texts = np.mean([one.texts - other.texts for one, other in pairs], axis=0)
    count = len(images)
    sums = np.bincount(asked.owners, weights=texts, minlength=count)
    captions = np.bincount(asked.owners, minlength=count)
    of_images, of_texts = float(images.mean()), float(texts.mean())
    found = (of_images + of_texts) / 2
    # Recall over texts is a ratio of two sums over images: each image's pull on it, to first order.
    pull = ((images - of_images) + (sums - of_texts * captions) / captions.mean()) / 2
    error = float(pull.std(ddof=1)) / sqrt(count) if count > 1 else 0.0
    p_value = erfc(abs(found) / error / sqrt(2)) if error else float(found == 0)
    return Difference(found, found - _WIDTH * error, found + _WIDTH * error, p_value, count)
