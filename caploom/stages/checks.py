"""What must always hold of an artifact, counted again from its tables and not taken from its manifest."""

from dataclasses import dataclass, field
from typing import Any

BATCHED_EQUALS_SINGLE = "batched_equals_single"
ROWS_ACCOUNTED = "rows_accounted"
ORPHAN_FREE = "orphan_free"
NEVER_EMPTY = "never_empty"
LOSS_IS_FINITE = "loss_is_finite"
BETTER_THAN_CHANCE = "better_than_chance"

DESCRIPTIONS = {
    BATCHED_EQUALS_SINGLE: "The canary: before the first shard, a few images in a batch got what they get alone.",
    ROWS_ACCOUNTED: "Rows in = rows out + rows failed, counted again from the tables: nothing lost, nothing doubled.",
    ORPHAN_FREE: "Every row is of an image that was ingested, and none is there twice.",
    NEVER_EMPTY: "No sheared caption is empty.",
    LOSS_IS_FINITE: "The training loss is a number to the end.",
    BETTER_THAN_CHANCE: "Recall@1 is above chance both ways on every evaluation set; a warning that blocks nothing.",
}
"""What each check says, by its name."""


@dataclass(frozen=True)
class CheckOutcome:
    """A check's name, whether it holds, one sentence, and its figures."""

    name: str
    passed: bool
    sentence: str
    figures: dict[str, Any] = field(default_factory=dict)


def accounted(rows_in: int, rows_out: int, rows_failed: int) -> CheckOutcome:
    """Rows in = rows out + rows failed."""
    figures = {"rows_in": rows_in, "rows_out": rows_out, "rows_failed": rows_failed}
    sentence = f"{rows_in} rows in, {rows_out} out, {rows_failed} failed."
    return CheckOutcome(ROWS_ACCOUNTED, rows_in == rows_out + rows_failed, sentence, figures)


def orphan_free(*, orphans: int, doubled: int) -> CheckOutcome:
    """No row is of an image that is not known, and none is there twice."""
    sentence = f"{orphans} rows are of no known image, {doubled} are there twice."
    return CheckOutcome(ORPHAN_FREE, orphans == 0 and doubled == 0, sentence, {"orphans": orphans, "doubled": doubled})
