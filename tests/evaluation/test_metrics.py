import numpy as np
import pytest

from caploom.errors import EvaluationError
from caploom.evaluation.intervals import paired_difference, share_interval
from caploom.evaluation.metrics import chance_recall_at, direction_metrics, mean_rank_variance, recall_at


def test_recall_counts_ranks_up_to_k() -> None:
    ranks = np.array([1, 2, 5, 6, 11])
    assert [recall_at(ranks, k) for k in (1, 5, 10)] == [0.2, 0.6, 0.8]


def test_chance_equals_what_random_orders_give() -> None:
    random = np.random.default_rng(0)
    positives, candidates = np.array([1, 2, 5, 5, 3]), 12
    ranks = np.array([[random.permutation(candidates)[:count].min() + 1 for count in positives] for _ in range(20_000)])
    for k in (1, 5, 10):
        assert chance_recall_at(k, positives, candidates) == pytest.approx(np.mean(ranks <= k), abs=0.006)


def test_chance_of_one_positive_is_k_of_n_and_of_all_positives_is_certainty() -> None:
    assert chance_recall_at(5, np.ones(500, int), 500) == pytest.approx(0.01)
    assert chance_recall_at(1, np.full(500, 5), 2500) == pytest.approx(0.002)
    assert chance_recall_at(3, np.array([4]), 4) == 1.0
    assert chance_recall_at(2, np.array([3]), 4) == 1.0


def test_k_above_the_number_of_candidates_is_refused() -> None:
    with pytest.raises(EvaluationError, match="Recall@10 needs at least 10 candidates, but this evaluation set has 9"):
        direction_metrics([np.ones(9)], [np.ones(9, int)], [9])


def test_metrics_of_a_direction_carry_chance_interval_median_and_mean() -> None:
    metrics = direction_metrics([np.array([1, 1, 4, 30])], [np.ones(4, int)], [40]).to_dict()
    assert metrics == {
        "recall@1": 0.5,
        "recall@5": 0.75,
        "recall@10": 0.75,
        "chance@1": pytest.approx(1 / 40),
        "chance@5": pytest.approx(5 / 40),
        "chance@10": pytest.approx(10 / 40),
        "interval@1": [0.0, 1.0],
        "interval@5": [0.25, 1.0],
        "interval@10": [0.25, 1.0],
        "median_rank": 2.5,
        "mean_rank": 9.0,
    }


def test_folds_are_averaged_each_among_its_own_candidates() -> None:
    ranks = [np.array([1, 1, 20, 20]), np.array([1, 20, 20, 20])]
    metrics = direction_metrics(ranks, [np.ones(4, int)] * 2, [40, 20])
    assert metrics.recall[1] == pytest.approx((0.5 + 0.25) / 2)
    assert metrics.chance[1] == pytest.approx((1 / 40 + 1 / 20) / 2)


@pytest.mark.parametrize("share", [0.0, 0.03, 0.4, 1.0])
def test_interval_is_that_of_resampled_queries(share: float) -> None:
    queries = 500
    found = np.arange(queries) < round(share * queries)
    random = np.random.default_rng(0)
    means = [random.choice(found, queries).mean() for _ in range(4000)]
    assert share_interval(int(found.sum()), queries) == pytest.approx(np.quantile(means, [0.025, 0.975]), abs=0.006)


def test_mean_rank_variance_is_within_images() -> None:
    # 1, 3 and 5 vary by 8/3 around 3; 7 and 7 not at all; a single caption cannot.
    variance = mean_rank_variance(np.array([1, 7, 3, 100, 7, 5]), np.array([0, 1, 0, 2, 1, 0]))
    assert variance == pytest.approx((8 / 3) / 3)


def test_paired_difference_is_that_of_resampled_pairs() -> None:
    random = np.random.default_rng(1)
    first = random.random(800) < 0.4
    second = np.where(random.random(800) < 0.8, first, random.random(800) < 0.3)
    found = paired_difference(first, second)
    picks = random.integers(0, 800, (4000, 800))
    means = (first[picks].astype(int) - second[picks].astype(int)).mean(axis=1)
    assert found.difference == pytest.approx(first.mean() - second.mean())
    assert found.interval == pytest.approx(np.quantile(means, [0.025, 0.975]), abs=0.004)
    assert found.p_value == pytest.approx(2 * min((means <= 0).mean(), (means >= 0).mean()), abs=0.02)


def test_pairing_sees_what_two_intervals_hide() -> None:
    # 30 of 2,000 queries are gained and none is lost; the two recalls' own intervals overlap by far.
    second = np.arange(2000) % 3 == 0
    first = second.copy()
    first[np.flatnonzero(~second)[:30]] = True
    assert share_interval(int(second.sum()), 2000)[1] > first.mean()
    assert paired_difference(first, second).p_value < 0.001


def test_no_difference_is_not_significant() -> None:
    same = np.arange(100) % 2 == 0
    found = paired_difference(same, same)
    assert (found.difference, found.interval, found.p_value) == (0.0, (0.0, 0.0), 1.0)
