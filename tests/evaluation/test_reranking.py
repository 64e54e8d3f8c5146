"""Folds and re-ranking, on encoders whose embeddings and scores are written down."""

import json
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from caploom.evaluation.evaluate import evaluate_encoder
from caploom.evaluation.reranking import reranked, top_candidates
from caploom.evaluation.retrieval import retrieval_ranks
from caploom.storage.records import EVALUATION_PAIRS

LABEL = "ITC + ITM re-ranking of the top 4"


@dataclass
class TableScorer:
    """Scores pairs from a matrix of images by texts."""

    scores: np.ndarray
    top: int = 4
    label: str = LABEL
    asked: list[tuple[int, int]] = field(default_factory=list)

    def score(self, paths, image_ids, texts, image, text, progress=None):
        self.asked += zip(image.tolist(), text.tolist(), strict=True)
        rows, columns = [int(paths[i]) for i in image], [int(texts[t]) for t in text]
        return self.scores[rows, columns].astype(np.float32)


@dataclass
class TableEncoder:
    """Embeds images by their path and texts by what they say: both are numbers of rows."""

    images: np.ndarray
    texts: np.ndarray
    pair_scorer: TableScorer | None = None
    scoring: str = "ITC"

    def embed_images(self, paths, image_ids, progress=None):
        return self.images[[int(path) for path in paths]]

    def embed_texts(self, texts, progress=None):
        return self.texts[[int(text) for text in texts]]


def unit(random, count, size=8):
    embeddings = random.normal(size=(count, size)).astype(np.float32)
    return embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)


def by_hand(product, itm, positive, top):
    """Sort by the product, then the first `top` again by the sum; one query's rank."""
    order = sorted(range(len(product)), key=lambda place: -product[place])
    head = sorted(order[:top], key=lambda place: -(product[place] + itm[place]))
    return 1 + next(number for number, place in enumerate(head + order[top:]) if positive[place])


@pytest.fixture
def world():
    random = np.random.default_rng(5)
    images, texts, owners = unit(random, 12), unit(random, 30), random.permutation(np.arange(30) % 12)
    return images, texts, owners, TableScorer(random.normal(size=(12, 30)))


def rerank(images, texts, owners, scorer):
    names = [str(number) for number in range(max(len(images), len(texts)))]
    before = retrieval_ranks(images, texts, owners)
    texts_said, paths = names[: len(texts)], names[: len(images)]
    return before, reranked(scorer, before, images, texts, owners, paths=paths, image_ids=paths, captions=texts_said)


def test_the_best_are_ordered_anew_and_stay_ahead(world):
    images, texts, owners, scorer = world
    _, found = rerank(images, texts, owners, scorer)
    product = images.astype(float) @ texts.astype(float).T
    assert found.images.tolist() == [by_hand(product[i], scorer.scores[i], owners == i, 4) for i in range(12)]
    assert found.texts.tolist() == [
        by_hand(product[:, t], scorer.scores[:, t], np.arange(12) == owners[t], 4) for t in range(30)
    ]


def test_each_pair_is_scored_once(world):
    images, texts, owners, scorer = world
    rerank(images, texts, owners, scorer)
    assert len(set(scorer.asked)) == len(scorer.asked) < 12 * 4 + 30 * 4


def test_an_equal_score_counts_against_us_among_the_best_and_at_their_end(world):
    images, texts, owners, scorer = world
    scorer.scores[:] = 0
    images[:], texts[:] = images[0], images[0]
    _, found = rerank(images, texts, owners, scorer)
    wrong_texts = 30 - np.bincount(owners)
    assert found.images.tolist() == (wrong_texts + 1).tolist()
    assert found.texts.tolist() == [12] * 30


def test_top_candidates_are_the_best_by_the_product(world):
    images, texts, _, _ = world
    expected = np.argsort(-(images @ texts.T), axis=1)[:, :5]
    assert np.array_equal(np.sort(top_candidates(images, texts, 5)), np.sort(expected))


def write_pairs(path, folds):
    rows = [
        {
            "image_id": f"{number:064x}",
            "image": str(number),
            "path": str(number),
            "captions": [str(2 * number), str(2 * number + 1)],
            "fold": fold,
            "phash": 0,
        }
        for number, fold in enumerate(folds)
    ]
    pq.write_table(pa.Table.from_pylist(rows, schema=EVALUATION_PAIRS), path)


def test_folds_are_searched_each_for_itself(tmp_path):
    random = np.random.default_rng(2)
    images, texts = unit(random, 24), unit(random, 48)
    folds = np.arange(24) % 2
    write_pairs(tmp_path / "pairs.parquet", folds.tolist())
    (metrics,) = evaluate_encoder(TableEncoder(images, texts), tmp_path / "pairs.parquet", out=tmp_path).values()
    owners = np.repeat(np.arange(24), 2)
    alone = [
        retrieval_ranks(images[folds == f], texts[folds[owners] == f], np.repeat(np.arange(12), 2)) for f in (0, 1)
    ]
    assert metrics.folds == 2
    assert metrics.text_to_image.recall[5] == pytest.approx(np.mean([(each.texts <= 5).mean() for each in alone]))
    assert metrics.text_to_image.chance[1] == pytest.approx(1 / 12)
    ranks = pq.read_table(tmp_path / "ranks.parquet").to_pylist()
    for fold in (0, 1):
        of_images = [r["rank"] for r in ranks if r["fold"] == fold and r["direction"] == "image_to_text"]
        assert of_images == alone[fold].images.tolist()


@pytest.mark.parametrize("folds", [[None] * 24, [0, 1] * 12])
def test_two_scorings_are_written_under_their_names(tmp_path, folds):
    random = np.random.default_rng(4)
    truth = np.repeat(np.eye(24), 2, axis=1)
    encoder = TableEncoder(unit(random, 24), unit(random, 48), TableScorer(100 * truth, top=11))
    write_pairs(tmp_path / "pairs.parquet", folds)
    metrics = evaluate_encoder(encoder, tmp_path / "pairs.parquet", out=tmp_path)
    written = json.loads((tmp_path / "metrics.json").read_text())
    assert list(metrics) == list(written) == ["ITC", LABEL]
    # A scorer that knows the truth puts first whatever is among the best eleven.
    ranks = pq.read_table(tmp_path / "ranks.parquet").to_pylist()
    before, after = ([row for row in ranks if row["scoring"] == scoring] for scoring in metrics)
    assert len(before) == len(after) == 24 + 48
    for one, other in zip(before, after, strict=True):
        assert (one["query"], one["fold"]) == (other["query"], other["fold"])
        assert other["rank"] == (1 if one["rank"] <= 11 else one["rank"])
