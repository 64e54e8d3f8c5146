"""The report's statistics against slow, independent ways of finding the same."""

import numpy as np
import pytest

from caploom.questions.results.arms import Ranks
from caploom.questions.results.paired import difference, hits_of, mean_difference
from caploom.report.costs import costs


def ranks_of(images, texts, captions):
    """Ranks of images with `captions` captions each."""
    ids = np.array([f"image{number:05d}" for number in range(len(images))])
    owners = np.repeat(np.arange(len(images)), captions)
    text_ids = np.array([f"{ids[owner]}#{place}" for place, owner in enumerate(owners)])
    return Ranks(ids, np.asarray(images), text_ids, np.asarray(texts), owners)


def drawn(rng, captions, skill):
    images = np.where(rng.random(len(captions)) < skill, 1, 7)
    # An image's captions are alike: they are found together more often than by chance.
    shared = np.repeat(rng.random(len(captions)), captions)
    texts = np.where(0.5 * shared + 0.5 * rng.random(captions.sum()) < skill, 1, 9)
    return ranks_of(images, texts, captions)


@pytest.mark.parametrize("uneven", [False, True])
def test_a_difference_is_the_recalls_own_and_its_interval_that_of_a_bootstrap_over_images(uneven):
    rng = np.random.default_rng(0)
    captions = rng.integers(1, 8, 400) if uneven else np.full(400, 5)
    one, other = drawn(rng, captions, 0.6), drawn(rng, captions, 0.45)
    found = difference(hits_of([one]), hits_of([other]))

    def recall(ranks, chosen=None):
        chosen = np.arange(400) if chosen is None else chosen
        of_text = [ranks.of_texts[ranks.owners == image] == 1 for image in range(400)]
        texts = np.concatenate([of_text[image] for image in chosen])
        return (np.mean(ranks.of_images[chosen] == 1) + np.mean(texts)) / 2

    assert found.difference == pytest.approx(recall(one) - recall(other))
    samples = [rng.integers(0, 400, 400) for _ in range(600)]
    low, high = np.quantile([recall(one, s) - recall(other, s) for s in samples], [0.025, 0.975])
    assert found.low == pytest.approx(low, abs=0.012)
    assert found.high == pytest.approx(high, abs=0.012)
    assert found.p_value < 0.01
    assert found.images == 400


def test_nothing_is_told_apart_where_nothing_differs():
    rng = np.random.default_rng(1)
    captions = np.full(50, 2)
    same = hits_of([drawn(rng, captions, 0.5)])
    found = difference(same, same)
    assert (found.difference, found.low, found.high, found.p_value) == (0.0, 0.0, 0.0, 1.0)


def test_intervals_hold_the_truth_as_often_as_they_say():
    rng = np.random.default_rng(2)
    captions, held = np.full(150, 3), 0
    for _ in range(200):
        found = difference(hits_of([drawn(rng, captions, 0.5)]), hits_of([drawn(rng, captions, 0.5)]))
        held += found.low <= 0 <= found.high
    assert 180 <= held <= 199


def test_seeds_are_averaged_query_by_query():
    captions = np.full(4, 1)
    first = ranks_of([1, 1, 3, 3], [1, 2, 1, 2], captions)
    second = ranks_of([1, 3, 1, 3], [1, 1, 2, 2], captions)
    hits = hits_of([first, second])
    assert hits.images.tolist() == [1, 0.5, 0.5, 0]
    assert hits.texts.tolist() == [1, 0.5, 0.5, 0]


def test_the_mean_of_several_pairs_is_the_mean_of_their_differences():
    rng = np.random.default_rng(3)
    captions = np.full(60, 2)
    a, b, c = (hits_of([drawn(rng, captions, skill)]) for skill in (0.7, 0.5, 0.3))
    mean = mean_difference([(a, b), (b, c)])
    assert mean.difference == pytest.approx((difference(a, b).difference + difference(b, c).difference) / 2)


def test_other_queries_are_not_compared():
    rng = np.random.default_rng(4)
    one = hits_of([drawn(rng, np.full(10, 2), 0.5)])
    other = hits_of([drawn(rng, np.full(11, 2), 0.5)])
    assert difference(one, other) is None


class Spent:
    def __init__(self, captions, training):
        self.caption_seconds = captions
        self.training_seconds = training


def test_the_frontier_is_what_nothing_beats_in_both():
    arms = {"cheap": [Spent(0, 10)], "worse": [Spent(5, 10)], "best": [Spent(20, 10)], "dear": [Spent(30, 20)]}
    recalls = {"cheap": 0.2, "worse": 0.1, "best": 0.5, "dear": 0.5}
    found = {each.recipe: each for each in costs(arms, recalls)}
    assert [name for name, each in found.items() if each.on_frontier] == ["cheap", "best"]
    assert found["best"].gain == pytest.approx(0.3)
    assert found["cheap"].gain == 0
