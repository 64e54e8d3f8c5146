"""Each recipe's images that were in an evaluation set, or nearly equal to another image."""

from collections.abc import Mapping, Sequence

from caploom.questions.results.arms import Arm
from caploom.report.sections import Cell, Row, Section
from caploom.training_set.exclusions import IN_EVALUATION_SET, NEAR_DUPLICATE_IMAGE, NEAR_EVALUATION_IMAGE

_COLUMNS = {
    IN_EVALUATION_SET: "in an evaluation set",
    NEAR_EVALUATION_IMAGE: "near an image of one",
    NEAR_DUPLICATE_IMAGE: "near another training image",
}


def duplicates_section(by_base: Mapping[str, Sequence[Arm]]) -> Section | None:
    """A row per recipe: images found and, where they differ, left out; None where nothing was found."""
    table: list[Row] = [["recipe", *_COLUMNS.values(), "left out"]]
    anything = False
    for base, arms in by_base.items():
        training_set = arms[0].training_set
        counted = training_set.manifest.summary.get("duplicates", {})
        found, excluded = counted.get("found", {}), counted.get("excluded", {})
        anything = anything or bool(found)
        counts = (*(found.get(reason, 0) for reason in _COLUMNS), sum(excluded.values()))
        table.append([base, *(Cell(f"{count:,}", training_set) for count in counts)])
    if not anything:
        return None
    sentence = (
        "Images whose perceptual hashes differ in a few bits; `duplicates` in the YAML decides what is left out. "
        "Recall on training images is not recall on unseen ones."
    )
    return Section("duplicates", "Duplicates and leakage (images)", sentences=[sentence], table=table)
