"""The filters of a recipe, between the merge and the mix: each drops captions, and each dropped one has its reason.

A filter runs in two phases. `prepare` may scan all captions once (or more often), bucket by bucket, where a decision
needs all of them; `Prepared.drops` then judges one bucket. A filter is one function and one line in `FILTERS`.

The merge calls `prepare_filters`, then `apply_filters` for each bucket, and `refuse_if_all_dropped` at the end.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from caploom.errors import TrainingError
from caploom.storage.records import DROPPED
from caploom.training_set import filter_rules, filter_scores
from caploom.training_set.exclusions import Exclusions
from caploom.training_set.filter_context import FilterContext, Narrowed, Prepared, Scan
from caploom.training_set.filter_settings import FilterStep

FILTERS: dict[str, Callable[[Any, Scan, FilterContext], Prepared]] = {
    "no_empty": filter_rules.no_empty,
    "min_words": filter_rules.min_words,
    "language": filter_rules.language,
    "max_repeats": filter_rules.max_repeats,
    "near_duplicates": filter_rules.near_duplicates,
    "keep_top": filter_scores.keep_top,
    "best_of_n": filter_scores.best_of_n,
}
"""The first phase of each filter: from its settings, the captions that reach it and the context to a judge."""


@dataclass
class PreparedFilters:
    """The filters of a recipe, in its order, with the counts of `apply_filters`.

    Attributes:
        judges: the name and the judge of each filter.
        seen: captions that came in.
        dropped: captions dropped so far, by reason.
    """

    recipe: str
    judges: list[tuple[str, Prepared]] = field(default_factory=list)
    seen: int = 0
    dropped: dict[str, int] = field(default_factory=dict)

    def count(self, seen: int, dropped: Mapping[str, int]) -> None:
        """Count a bucket's captions and the dropped ones."""
        self.seen += seen
        for reason, number in dropped.items():
            self.dropped[reason] = self.dropped.get(reason, 0) + number

    def refuse_if_all_dropped(self) -> None:
        """Raise `TrainingError` when no caption is left, saying which filter dropped how many."""
        if self.seen and sum(self.dropped.values()) == self.seen:
            counts = ", ".join(f"{reason} {count:,}" for reason, count in self.dropped.items())
            raise TrainingError(
                f"The filters of the recipe {self.recipe} drop all {self.seen:,} of its captions ({counts}); "
                "loosen them or leave one out."
            )


def filters_identity(steps: Sequence[FilterStep]) -> list[dict[str, Any]]:
    """All that decides what the filters drop, as JSON values: part of a training set's plan."""
    return [step.identity() for step in steps]


def prepare_filters(
    steps: Sequence[FilterStep], scan: Scan, context: FilterContext, left_out: Exclusions | None = None
) -> PreparedFilters:
    """Prepare the recipe's filters, each on what the previous ones leave, after the excluded images.

    Raises `TrainingError` when a filter cannot work, for example without its model.
    """
    prepared = PreparedFilters(context.recipe)
    if left_out is not None and left_out.reasons:
        prepared.judges.append(("duplicates", left_out))
    for step in steps:
        remaining = Narrowed(scan, partial(_kept, judges=list(prepared.judges)))
        prepared.judges.append((step.filter, FILTERS[step.filter](step, remaining, context)))
    return prepared


def apply_filters(captions: pa.Table, prepared: PreparedFilters) -> tuple[pa.Table, pa.Table]:
    """A bucket's kept captions and its dropped ones (schema DROPPED), both in their order."""
    kept, dropped = judge(captions, prepared.judges)
    prepared.count(len(captions), reasons_of(dropped))
    return kept, dropped


def judge(captions: pa.Table, judges: Sequence[tuple[str, Prepared]]) -> tuple[pa.Table, pa.Table]:
    """The same without counting."""
    row = np.arange(len(captions))
    lost, lost_rows = [DROPPED.empty_table()], [np.zeros(0, np.int64)]
    for _, each in judges:
        if len(captions) == 0:
            break
        drops = {reason: mask for reason, mask in each.drops(captions).items() if mask.any()}
        if not drops:
            continue
        gone = np.logical_or.reduce(list(drops.values()))
        for reason, mask in drops.items():
            rows = captions.select(["image_id", "source", "caption"]).filter(pa.array(mask))
            lost.append(rows.append_column("reason", pa.array([reason] * len(rows), pa.string())).cast(DROPPED))
            lost_rows.append(row[mask])
        captions, row = captions.filter(pa.array(~gone)), row[~gone]
    # Sorted by filter they would depend on the division into buckets.
    order = np.argsort(np.concatenate(lost_rows), kind="stable")
    return captions, pa.concat_tables(lost).take(pa.array(order))


def reasons_of(dropped: pa.Table) -> dict[str, int]:
    """The numbers of dropped captions by reason."""
    return {each["values"]: each["counts"] for each in pc.value_counts(dropped["reason"]).to_pylist()}


def _kept(captions: pa.Table, judges: Sequence[tuple[str, Prepared]]) -> pa.Table:
    return judge(captions, judges)[0]
