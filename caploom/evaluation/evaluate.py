"""Measures a checkpoint's image-text retrieval on an evaluation set, and writes the metrics and every query's rank."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from caploom.common.text import first_line
from caploom.errors import EvaluationError
from caploom.evaluation.encoders import Encoder
from caploom.evaluation.metrics import RECALL_AT, RetrievalMetrics, direction_metrics, mean_rank_variance
from caploom.evaluation.reranking import reranked
from caploom.evaluation.retrieval import Ranks, retrieval_ranks
from caploom.images.moves import STAYED, Moves
from caploom.storage.records import EVALUATION_PAIRS, RANKS

METRICS_FILE = "metrics.json"
RANKS_FILE = "ranks.parquet"


def evaluate_encoder(
    encoder: Encoder,
    pairs: Path,
    *,
    out: Path,
    progress: Callable[[int, int], None] | None = None,
    moves: Moves = STAYED,
) -> dict[str, RetrievalMetrics]:
    """Embed the evaluation pairs, rank both ways, and write `metrics.json` and `ranks.parquet` into the folder `out`.

    Args:
        encoder: a checkpoint's.
        pairs: a Parquet file of `EVALUATION_PAIRS`; where it has folds, each is searched separately.
        out: an existing folder; the caller commits it.
        progress: called with done and total counts: images and captions to embed, then pairs to re-rank.
        moves: where the images are now.

    Returns:
        The metrics by their scoring: one, or two where the model re-ranks.

    Raises:
        EvaluationError: if retrieval cannot be measured on these pairs.

    Example:
        >>> from caploom.evaluation.load_encoder import load_encoder
        >>> found = evaluate_encoder(load_encoder(Path("checkpoint")), Path("pairs.parquet"), out=Path("measured"))
        >>> found["cosine"].images, found["cosine"].captions
        (10, 10)
    """
    data = _Pairs.read(pairs, moves)
    data.refuse_fewer_candidates_than(max(RECALL_AT), pairs)
    embedded = len(data.paths) + len(data.texts)
    everything = embedded + (0 if encoder.pair_scorer is None else data.pairs_among(encoder.pair_scorer.top))

    def report(done: int) -> None:
        if progress is not None:
            progress(done, everything)

    images = encoder.embed_images(data.paths, data.image_ids, progress=report)
    texts = encoder.embed_texts(data.texts, progress=lambda done: report(len(data.paths) + done))
    folds = [_Fold(data, images, texts, fold) for fold in np.unique(data.folds)]
    ranks = {encoder.scoring: [fold.ranks() for fold in folds]}
    if encoder.pair_scorer is not None:
        scorer, started = encoder.pair_scorer, embedded
        ranks[scorer.label] = []
        for fold, before in zip(folds, ranks[encoder.scoring], strict=True):
            ranks[scorer.label].append(
                reranked(
                    scorer,
                    before,
                    fold.images,
                    fold.texts,
                    fold.owners,
                    paths=[data.paths[index] for index in fold.image_index],
                    image_ids=[data.image_ids[index] for index in fold.image_index],
                    captions=[data.texts[index] for index in fold.text_index],
                    progress=lambda done, started=started: report(started + done),  # type: ignore[misc]
                )
            )
            started += (everything - embedded) // len(folds)
        report(everything)  # pairs that are among the best of both their sides are scored once
    metrics = {scoring: _metrics(scoring, folds, of_folds) for scoring, of_folds in ranks.items()}
    tables = [
        _ranks_table(data, fold, each, s) for s, of in ranks.items() for fold, each in zip(folds, of, strict=True)
    ]
    pq.write_table(pa.concat_tables(tables), out / RANKS_FILE, compression="zstd")
    written = {scoring: each.to_dict() for scoring, each in metrics.items()}
    (out / METRICS_FILE).write_text(json.dumps(written, indent=2) + "\n", encoding="utf-8")
    return metrics


@dataclass(frozen=True)
class _Pairs:
    """Evaluation pairs: images, and their captions in the images' order."""

    image_ids: list[str]
    paths: list[str]
    texts: list[str]
    text_ids: list[str]
    owners: np.ndarray
    folds: np.ndarray  # each image's fold; -1 where the set has none

    def pairs_among(self, top: int) -> int:
        """The number of pairs of all queries' `top` best candidates, over all folds."""
        total = 0
        for fold in np.unique(self.folds):
            images = int(np.count_nonzero(self.folds == fold))
            texts = int(np.count_nonzero(self.folds[self.owners] == fold))
            total += images * min(top, texts) + texts * min(top, images)
        return total

    @classmethod
    def read(cls, pairs: Path, moves: Moves) -> "_Pairs":
        columns = ["image_id", "path", "captions"]
        try:
            table = pq.read_table(pairs)
            if "fold" not in table.column_names:  # written before sets had folds
                table = table.append_column("fold", pa.nulls(len(table), pa.int16()))
            table = table.select([*columns, "fold"])
            table = table.cast(pa.schema([EVALUATION_PAIRS.field(name) for name in [*columns, "fold"]]))
            table = moves.of_table(table)
        except (OSError, KeyError, pa.ArrowException) as error:
            raise EvaluationError(f"{pairs}: these are not evaluation pairs ({first_line(error)}).") from None
        image_ids: list[str] = table["image_id"].to_pylist()
        paths: list[str] = table["path"].to_pylist()
        captions: list[list[str]] = table["captions"].to_pylist()
        for path, of_image in zip(paths, captions, strict=True):
            if not of_image:
                raise EvaluationError(
                    f"{path}: this evaluation image has no caption; caption it or remove it from the set."
                )
        return cls(
            image_ids,
            paths,
            [text for of_image in captions for text in of_image],
            [
                f"{image}#{position}"
                for image, texts in zip(image_ids, captions, strict=True)
                for position in range(len(texts))
            ],
            np.repeat(np.arange(len(paths)), [len(of_image) for of_image in captions]),
            np.array([-1 if fold is None else fold for fold in table["fold"].to_pylist()], np.int64),
        )

    def refuse_fewer_candidates_than(self, k: int, pairs: Path) -> None:
        """Raise `EvaluationError` before anything is embedded when the set, or a fold, is too small for Recall@K."""
        folds, images = np.unique(self.folds, return_counts=True)
        for fold, count in zip(folds, images, strict=True):
            if count < k:
                which = "this evaluation set" if fold < 0 else f"fold {fold} of this evaluation set"
                raise EvaluationError(
                    f"{pairs}: Recall@{k} needs at least {k} candidates, but {which} has {count} "
                    f"image{'' if count == 1 else 's'}; enlarge it."
                )


class _Fold:
    """A part of the pairs that is searched separately."""

    def __init__(self, data: _Pairs, images: np.ndarray, texts: np.ndarray, number: int) -> None:
        self.number = None if number < 0 else int(number)
        self.image_index = np.flatnonzero(data.folds == number)
        self.text_index = np.flatnonzero(data.folds[data.owners] == number)
        position = np.zeros(len(data.paths), np.int64)
        position[self.image_index] = np.arange(len(self.image_index))
        self.owners = position[data.owners[self.text_index]]
        whole = len(self.image_index) == len(data.paths)
        self.images, self.texts = (images, texts) if whole else (images[self.image_index], texts[self.text_index])

    def ranks(self) -> Ranks:
        return retrieval_ranks(self.images, self.texts, self.owners)


def _metrics(scoring: str, folds: list[_Fold], ranks: list[Ranks]) -> RetrievalMetrics:
    images = [len(fold.images) for fold in folds]
    captions = [len(fold.texts) for fold in folds]
    return RetrievalMetrics(
        scoring=scoring,
        images=sum(images),
        captions=sum(captions),
        folds=len(folds),
        image_to_text=direction_metrics(
            [rank.images for rank in ranks], [np.bincount(fold.owners) for fold in folds], captions
        ),
        text_to_image=direction_metrics([rank.texts for rank in ranks], [np.ones(n, int) for n in captions], images),
        mean_rank_variance=float(
            np.mean([mean_rank_variance(each.texts, fold.owners) for each, fold in zip(ranks, folds, strict=True)])
        ),
    )


def _ranks_table(data: _Pairs, fold: _Fold, ranks: Ranks, scoring: str) -> pa.Table:
    queries = [data.image_ids[index] for index in fold.image_index] + [
        data.text_ids[index] for index in fold.text_index
    ]
    columns = {
        "direction": ["image_to_text"] * len(ranks.images) + ["text_to_image"] * len(ranks.texts),
        "query": queries,
        "rank": np.concatenate([ranks.images, ranks.texts]).astype(np.int32),
        "scoring": [scoring] * len(queries),
        "fold": pa.array([fold.number] * len(queries), pa.int16()),
    }
    return pa.table(columns, schema=RANKS)
