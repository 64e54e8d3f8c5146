"""The filters by image-text score: `keep_top` (DataComp, BLIP's CapFilt) and `best_of_n` (LAION-COCO)."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from caploom.common.names import RAW_SOURCE
from caploom.training_set.caption_columns import image_numbers, text_column
from caploom.training_set.filter_context import FilterContext, Narrowed, Scan
from caploom.training_set.filter_settings import BestOfN, KeepTop
from caploom.training_set.scores import Scores, scores_of

NOT_SCORED = "not_scored"
"""The reason for captions whose image could not be read for scoring."""


@dataclass(frozen=True)
class TopShare:
    """Judges by a minimum score."""

    scores: Scores
    threshold: float

    def drops(self, captions: pa.Table) -> Mapping[str, np.ndarray]:
        """As `Prepared`."""
        scores = self.scores.look_up(captions)
        return {"keep_top": scores < self.threshold, NOT_SCORED: np.isnan(scores)}


@dataclass(frozen=True)
class BestCaptions:
    """Judges by a synthetic caption's rank within its image; equal scores keep the order of the table."""

    scores: Scores
    count: int

    def drops(self, captions: pa.Table) -> Mapping[str, np.ndarray]:
        """As `Prepared`."""
        synthetic = np.flatnonzero(
            text_column(captions, "source").to_numpy(zero_copy_only=False).astype(object) != RAW_SOURCE
        )
        scores = self.scores.look_up(captions)[synthetic]
        images = image_numbers(captions)[synthetic]
        order = np.lexsort((-scores, images))  # stable, and NaN last
        starts = np.flatnonzero(np.append(True, np.diff(images[order]) != 0)[: len(order)])
        rank = np.arange(len(order)) - np.repeat(starts, np.diff(np.append(starts, len(order))))
        unscored = np.isnan(scores)
        worse = np.zeros(len(captions), bool)
        worse[synthetic[order[rank >= self.count]]] = True
        missing = np.zeros(len(captions), bool)
        missing[synthetic[unscored]] = True
        return {"best_of_n": worse & ~missing, NOT_SCORED: missing}


def keep_top(step: KeepTop, scan: Scan, context: FilterContext) -> TopShare:
    """Keeps the captions that score at least as high as the last one within the share of all captions."""
    scores = scores_of(step, scan, context)
    parts = [np.zeros(0, np.float32)]
    for found in scan.each(scores.look_up):
        parts.append(found[~np.isnan(found)])
    every = np.concatenate(parts)
    if len(every) == 0:
        return TopShare(scores, -np.inf)
    kept = max(1, round(step.keep_top * len(every)))
    return TopShare(scores, float(np.partition(every, len(every) - kept)[len(every) - kept]))


def best_of_n(step: BestOfN, scan: Scan, context: FilterContext) -> BestCaptions:
    """Keeps the n best synthetic captions of each image, and all raw ones."""
    return BestCaptions(scores_of(step, Narrowed(scan, _synthetic), context), step.best_of_n)


def _synthetic(captions: pa.Table) -> pa.Table:
    raw = text_column(captions, "source").to_numpy(zero_copy_only=False).astype(object) == RAW_SOURCE
    return captions.filter(pa.array(~raw))
