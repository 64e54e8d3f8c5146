"""Bootstrap over queries: for one recall, and for the difference of two recipes on the same queries.

A recall is a mean of zeros and ones. Drawing n queries with replacement then gives a binomial number of ones, and a
pair's difference a multinomial one, so the bootstrap is taken from these distributions and not by resampling arrays.
"""

from dataclasses import dataclass

import numpy as np

CONFIDENCE = 0.95
_DRAWS = 100_000


def share_interval(found: int, queries: int) -> tuple[float, float]:
    """The 95 % percentile interval of a recall (0 to 1) over all bootstrap samples of its queries: exact, no draws."""
    from scipy.stats import binom  # takes a second to import, which reading metrics does not need

    tail = (1 - CONFIDENCE) / 2
    low, high = binom.ppf([tail, 1 - tail], queries, found / queries) / queries
    return float(low), float(high)


@dataclass(frozen=True)
class PairedDifference:
    """The recall of one side minus that of the other, on the same queries.

    Attributes:
        difference: -1 to 1.
        interval: its 95 % percentile interval over bootstrap samples of the queries.
        p_value: two-sided: twice the smaller fraction of bootstrap samples at or beyond no difference, at most 1.
    """

    difference: float
    interval: tuple[float, float]
    p_value: float


def paired_difference(first: np.ndarray, second: np.ndarray, *, seed: int = 0) -> PairedDifference:
    """Compare the hits of both sides: bool arrays of shape (queries,) in the same order.

    Example:
        >>> found = paired_difference(np.arange(100) < 60, np.arange(100) < 45)
        >>> found.difference, bool(found.p_value < 0.01)
        (0.15, True)
    """
    queries = len(first)
    wins, losses = int(np.count_nonzero(first & ~second)), int(np.count_nonzero(second & ~first))
    shares = np.array([wins, losses, queries - wins - losses]) / queries
    drawn = np.random.default_rng(seed).multinomial(queries, shares, size=_DRAWS)
    differences = (drawn[:, 0] - drawn[:, 1]) / queries
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(differences, [tail, 1 - tail])
    # One more on each side: finitely many samples cannot show that something never happens.
    beyond = min(np.count_nonzero(differences <= 0), np.count_nonzero(differences >= 0)) + 1
    p_value = min(1.0, 2 * beyond / (_DRAWS + 1))
    return PairedDifference((wins - losses) / queries, (float(low), float(high)), p_value)
