"""Queries that one recipe gets right and another wrong, as examples: chosen by their ranks, the same each time."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from caploom.errors import StoreError
from caploom.evaluation.metrics import DIRECTIONS
from caploom.images.moves import STAYED, Moves
from caploom.questions.gallery import thumbnail_uri
from caploom.questions.results.arms import Arm, Ranks
from caploom.storage.store import Store
from caploom.storage.tables import read_table

_EACH = 2  # queries per pair of recipes and direction
_CAPTIONS = 5  # shown of an image


@dataclass(frozen=True)
class Query:
    """One query, right in one recipe and wrong in the other.

    Attributes:
        direction: `image_to_text` or `text_to_image`.
        image: the name of the image's file.
        picture: the image as a small `data:` URI; None when it is gone.
        asked: the query's caption, or the captions of its image.
        right: the recipe that ranks the right answer first.
        wrong: the one that does not.
        rank: the right answer's rank in the latter.
    """

    direction: str
    image: str
    picture: str | None
    asked: tuple[str, ...]
    right: str
    wrong: str
    rank: int


def example_queries(
    store: Store,
    pairs: Sequence[tuple[tuple[str, Arm, Ranks], tuple[str, Arm, Ranks]]],
    evaluation_set: str,
    moves: Moves = STAYED,
) -> list[Query]:
    """For each pair of recipes and direction, the queries that the first gets right and the second ranks worst.

    `pairs` are ((name, arm, ranks), (name, arm, ranks)). The pictures are read where the evaluation set has
    them, or where `moves` says that they are now.
    """
    chosen: list[tuple[str, str, str, str, int]] = []
    for (right, _, ours), (wrong, _, theirs) in pairs:
        for direction in DIRECTIONS:
            ids = ours.image_ids if direction == DIRECTIONS[0] else ours.text_ids
            for query in _worst_for_second(ours.of(direction), theirs.of(direction)):
                chosen.append((direction, str(ids[query]), right, wrong, int(theirs.of(direction)[query])))
    if not chosen:
        return []
    shown = _images(store, pairs[0][0][1], evaluation_set, {query.rsplit("#", 1)[0] for _, query, *_ in chosen})
    found = []
    for direction, asked_for, right, wrong, rank in chosen:
        image_id, _, index = asked_for.partition("#")
        image, path, captions = shown[image_id]
        asked = (captions[int(index)],) if index else tuple(captions[:_CAPTIONS])
        found.append(Query(direction, image, thumbnail_uri(moves.present(path)), asked, right, wrong, rank))
    return found


def _worst_for_second(ours: np.ndarray, theirs: np.ndarray) -> list[int]:
    right = np.flatnonzero((ours == 1) & (theirs > 1))
    return [int(index) for index in right[np.argsort(-theirs[right], kind="stable")][:_EACH]]


def _images(store: Store, arm: Arm, evaluation_set: str, wanted: set[str]) -> dict[str, tuple[str, str, list[str]]]:
    """For each image its file's name, its path and its captions."""
    for record in arm.metrics.manifest.inputs:
        if record.address.startswith(f"evaluation_pairs/{evaluation_set}/"):
            artifact = store.read(record.address)
            if artifact is not None:
                rows = read_table(artifact.file("pairs.parquet"), ["image_id", "image", "path", "captions"]).to_pylist()
                return {
                    row["image_id"]: (row["image"], row["path"], row["captions"])
                    for row in rows
                    if row["image_id"] in wanted
                }
    raise StoreError(f"{arm.metrics.manifest.address}: its evaluation set {evaluation_set} is gone; measure it again.")
