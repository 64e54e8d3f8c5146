import tracemalloc

import numpy as np
import pytest
import torch

from caploom.errors import EvaluationError
from caploom.evaluation.metrics import recall_at
from caploom.evaluation.retrieval import Ranks, retrieval_ranks


def oracle(images: np.ndarray, texts: np.ndarray, owners: np.ndarray) -> tuple[list[int], list[int]]:
    """Sort all candidates of each query, a tied positive after everything it ties with, and look for the first."""
    scores = [[float(np.dot(image.astype(float), text.astype(float))) for text in texts] for image in images]

    def rank(of: list[float], right: set[int]) -> int:
        order = sorted(range(len(of)), key=lambda place: (-of[place], place in right))
        return next(number for number, place in enumerate(order, start=1) if place in right)

    by_text = list(zip(*scores, strict=True))
    return (
        [rank(scores[image], set(np.flatnonzero(owners == image))) for image in range(len(images))],
        [rank(by_text[text], {int(owners[text])}) for text in range(len(texts))],
    )


def integer_embeddings(random: np.random.Generator, count: int, size: int = 4) -> np.ndarray:
    """Small whole numbers, so that products are exact and ties are many."""
    return random.integers(-2, 3, (count, size)).astype(np.float32)


def normalized(random: np.random.Generator, count: int, size: int = 32) -> np.ndarray:
    embeddings = random.normal(size=(count, size))
    return (embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)).astype(np.float32)


def owners_of(random: np.random.Generator, images: int, texts: int) -> np.ndarray:
    """Each image has a text at least, in no order."""
    return random.permutation(np.concatenate([np.arange(images), random.integers(0, images, texts - images)]))


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("blocks", [(1, 1), (5, 7), (240, 4096)])
def test_ranks_equal_a_sort_with_ties_against_us(seed: int, blocks: tuple[int, int]) -> None:
    random = np.random.default_rng(seed)
    images, texts = integer_embeddings(random, 17), integer_embeddings(random, 41)
    owners = owners_of(random, 17, 41)
    found = retrieval_ranks(images, texts, owners, images_at_once=blocks[0], texts_at_once=blocks[1])
    assert (found.images.tolist(), found.texts.tolist()) == oracle(images, texts, owners)


@pytest.mark.parametrize("blocks", [(3, 64), (240, 4096)])
def test_equal_embeddings_tie_wherever_they_stand(blocks: tuple[int, int]) -> None:
    # A product of floats rounds differently in its middle and at its edges: compared as it is, these would not tie.
    random = np.random.default_rng(3)
    images, texts = normalized(random, 130, 512), normalized(random, 400, 512)
    owners = np.concatenate([np.arange(130), random.integers(0, 130, 270)])
    images[[5, 77, 129]] = images[40]
    texts[[1, 200, 399]] = texts[300]
    found = retrieval_ranks(images, texts, owners, images_at_once=blocks[0], texts_at_once=blocks[1])
    expected = oracle(images, texts, owners)
    assert (found.images.tolist(), found.texts.tolist()) == expected


def test_equal_scores_count_against_us_and_positives_not_against_each_other() -> None:
    images = np.array([[1], [-5]], np.float32)
    texts = np.array([[1], [1], [1], [0.5], [2]], np.float32)
    # The first image's texts are 0 and 1: text 4 is better, text 2 ties with both.
    found = retrieval_ranks(images, texts, np.array([0, 0, 1, 1, 1]))
    assert found.images.tolist()[0] == 3


def test_constant_embeddings_rank_last_and_not_first() -> None:
    found = retrieval_ranks(np.ones((4, 3), np.float32), np.ones((8, 3), np.float32), np.repeat(np.arange(4), 2))
    assert found.images.tolist() == [7] * 4
    assert found.texts.tolist() == [4] * 8


def clip_benchmark_recalls(images: np.ndarray, texts: np.ndarray, owners: np.ndarray, k: int) -> tuple[float, float]:
    from clip_benchmark.metrics import zeroshot_retrieval

    scores = torch.from_numpy(texts) @ torch.from_numpy(images).T
    pairs = torch.zeros_like(scores, dtype=torch.bool)
    pairs[torch.arange(len(texts)), torch.from_numpy(owners)] = True
    both = zeroshot_retrieval.recall_at_k(scores.T, pairs.T, k), zeroshot_retrieval.recall_at_k(scores, pairs, k)
    return tuple((recall > 0).float().mean().item() for recall in both)


@pytest.mark.parametrize("captions", [[5] * 40, [1] * 60, [1, 4, 2, 7, 3, 5] * 6])
@pytest.mark.parametrize("clustered", [False, True])
def test_recall_equals_clip_benchmark(captions: list[int], clustered: bool) -> None:
    random = np.random.default_rng(len(captions))
    owners = np.repeat(np.arange(len(captions)), captions)
    texts, images = normalized(random, sum(captions)), normalized(random, len(captions))
    if clustered:
        images += np.stack([texts[owners == image].mean(0) for image in range(len(captions))])
    found = retrieval_ranks(images, texts, owners)
    for k in (1, 5, 10):
        expected = clip_benchmark_recalls(images, texts, owners, k)
        assert (recall_at(found.images, k), recall_at(found.texts, k)) == pytest.approx(expected, abs=1e-6)


def test_embeddings_need_not_have_length_one() -> None:
    random = np.random.default_rng(1)
    images, texts = normalized(random, 50, 64), normalized(random, 120, 64)
    owners = owners_of(random, 50, 120)
    unit, long = retrieval_ranks(images, texts, owners), retrieval_ranks(images * 300, texts * 0.02, owners)
    assert (unit.images.tolist(), unit.texts.tolist()) == (long.images.tolist(), long.texts.tolist())


def test_image_without_captions_is_refused() -> None:
    with pytest.raises(EvaluationError, match=r"1 of the 3 evaluation images have no caption .* image number 2"):
        retrieval_ranks(np.ones((3, 2)), np.ones((2, 2)), np.array([0, 2]))
    with pytest.raises(EvaluationError, match="no images"):
        retrieval_ranks(np.ones((0, 2)), np.ones((0, 2)), np.array([], int))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_embedding_that_is_no_number_is_refused(value: float) -> None:
    good, bad = np.ones((3, 2), np.float32), np.ones((3, 2), np.float32)
    bad[1, 0] = value
    with pytest.raises(EvaluationError, match="image number 2 is not finite"):
        retrieval_ranks(bad, good, np.arange(3))
    with pytest.raises(EvaluationError, match="text number 2 is not finite"):
        retrieval_ranks(good, bad, np.arange(3))


def test_memory_stays_in_the_block() -> None:
    random = np.random.default_rng(0)
    images, texts = normalized(random, 2000, 8), normalized(random, 10_000, 8)
    tracemalloc.start()
    found = retrieval_ranks(images, texts, np.repeat(np.arange(2000), 5))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert isinstance(found, Ranks)
    assert peak < 16e6  # the whole matrix has 80 MB
