import numpy as np
import pytest
import torch

from caploom.errors import EvaluationError
from caploom.evaluation.retrieval import (
    Positives,
    best_positive_ranks,
    caption_positives,
    chance_recall_at,
    direction_metrics,
    recall_at,
)


def oracle_ranks(queries: np.ndarray, candidates: np.ndarray, positives: list[list[int]]) -> list[int]:
    """Sort all candidates of each query, a tied positive after everything it ties with, and look for the first."""
    ranks = []
    for query, right in zip(queries, positives, strict=True):
        scores = [float(np.dot(query, candidate)) for candidate in candidates]
        order = sorted(range(len(candidates)), key=lambda index: (-scores[index], index in right))
        ranks.append(next(place for place, index in enumerate(order, start=1) if index in right))
    return ranks


def integer_embeddings(random: np.random.Generator, count: int, size: int = 4) -> np.ndarray:
    """Small whole numbers, so that products are exact and ties are many."""
    return random.integers(-2, 3, (count, size)).astype(np.float32)


def normalized(random: np.random.Generator, count: int, size: int = 32) -> np.ndarray:
    embeddings = random.normal(size=(count, size))
    return (embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)).astype(np.float32)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("block_scores", [1, 50, 10**6])
def test_ranks_equal_a_sort_with_ties_against_us(seed: int, block_scores: int) -> None:
    random = np.random.default_rng(seed)
    queries, candidates = integer_embeddings(random, 17), integer_embeddings(random, 23)
    positives = [random.choice(23, size=random.integers(1, 6), replace=False).tolist() for _ in queries]
    ranks = best_positive_ranks(queries, candidates, Positives.of_lists(positives), block_scores=block_scores)
    assert ranks.tolist() == oracle_ranks(queries, candidates, positives)


def test_equal_scores_count_against_us_and_positives_not_against_each_other() -> None:
    queries = np.ones((1, 1), np.float32)
    candidates = np.array([[1], [1], [1], [0.5], [2]], np.float32)
    # Candidates 0 and 1 are right: 4 is better, 2 ties with both.
    assert best_positive_ranks(queries, candidates, Positives.of_lists([[0, 1]])).tolist() == [3]


def test_constant_embeddings_rank_last_and_not_first() -> None:
    images, texts = np.ones((4, 3), np.float32), np.ones((8, 3), np.float32)
    image_to_text, text_to_image = caption_positives([2, 2, 2, 2])
    assert best_positive_ranks(images, texts, image_to_text).tolist() == [7] * 4
    assert best_positive_ranks(texts, images, text_to_image).tolist() == [4] * 8


@pytest.mark.parametrize("captions", [[5] * 40, [1] * 60, [1, 4, 2, 7, 3, 5] * 6])
@pytest.mark.parametrize("clustered", [False, True])
def test_recall_equals_clip_benchmark(captions: list[int], clustered: bool) -> None:
    zeroshot_retrieval = pytest.importorskip("clip_benchmark.metrics.zeroshot_retrieval")
    random = np.random.default_rng(len(captions))
    image_to_text, text_to_image = caption_positives(captions)
    texts = normalized(random, sum(captions))
    images = normalized(random, len(captions))
    if clustered:
        images += np.stack([texts[part].mean(0) for part in np.split(np.arange(len(texts)), np.cumsum(captions)[:-1])])
    image_ranks = best_positive_ranks(images, texts, image_to_text)
    text_ranks = best_positive_ranks(texts, images, text_to_image)

    scores = torch.from_numpy(texts) @ torch.from_numpy(images).T
    pairs = torch.zeros_like(scores, dtype=torch.bool)
    pairs[torch.arange(len(texts)), torch.from_numpy(text_to_image.candidates)] = True
    for k in (1, 5, 10):
        theirs = zeroshot_retrieval.recall_at_k(scores, pairs, k), zeroshot_retrieval.recall_at_k(scores.T, pairs.T, k)
        found = [(recall > 0).float().mean().item() for recall in theirs]
        assert recall_at(text_ranks, k) == pytest.approx(found[0], abs=1e-6)
        assert recall_at(image_ranks, k) == pytest.approx(found[1], abs=1e-6)


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
    with pytest.raises(EvaluationError, match="Recall@10 needs at least 10 candidates, and this evaluation set has 9"):
        direction_metrics(np.ones(9), np.ones(9, int), 9)


def test_metrics_of_a_direction_carry_chance_median_and_mean() -> None:
    metrics = direction_metrics(np.array([1, 1, 4, 30]), np.ones(4, int), 40).to_dict()
    assert metrics == {
        "recall@1": 0.5,
        "recall@5": 0.75,
        "recall@10": 0.75,
        "chance@1": pytest.approx(1 / 40),
        "chance@5": pytest.approx(5 / 40),
        "chance@10": pytest.approx(10 / 40),
        "median_rank": 2.5,
        "mean_rank": 9.0,
    }


def test_image_without_captions_is_refused() -> None:
    with pytest.raises(EvaluationError, match=r"1 of the 3 evaluation images have no caption .* image number 2"):
        caption_positives([5, 0, 5])
    with pytest.raises(EvaluationError, match="no images"):
        caption_positives([])
    with pytest.raises(EvaluationError, match="Query number 2 has no positive"):
        best_positive_ranks(np.ones((2, 1)), np.ones((3, 1)), Positives.of_lists([[0], []]))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_embedding_that_is_no_number_is_refused(value: float) -> None:
    images, texts = np.ones((3, 2), np.float32), np.ones((3, 2), np.float32)
    images[1, 0] = value
    with pytest.raises(EvaluationError, match="query number 2 is not finite"):
        best_positive_ranks(images, texts, Positives.of_lists([[0], [1], [2]]))
    with pytest.raises(EvaluationError, match="candidate number 2 is not finite"):
        best_positive_ranks(texts, images, Positives.of_lists([[0], [1], [2]]))


def test_memory_stays_in_the_block() -> None:
    import tracemalloc

    random = np.random.default_rng(0)
    images, texts = normalized(random, 2000, 8), normalized(random, 10_000, 8)
    image_to_text, _ = caption_positives([5] * 2000)
    tracemalloc.start()
    best_positive_ranks(images, texts, image_to_text, block_scores=500_000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8e6  # the whole matrix has 80 MB
