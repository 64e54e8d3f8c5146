"""How true a caption is, measured against the known content of the scenes."""

import re
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TypeVar

from caploom.demo.world import THINGS
from caploom.errors import CaploomError

Image = TypeVar("Image", bound=Hashable)


class NothingToScoreError(CaploomError):
    """No text, or a text of an image whose truth is unknown."""


@dataclass(frozen=True)
class CaptionTruth:
    """Fractions between 0 and 1, over all things of all images together.

    Attributes:
        named_share: fraction of the things present that the texts name (recall).
        right_share: fraction of the things named that are present (precision); 1.0 if no text names a thing.
        n: number of texts.
    """

    named_share: float
    right_share: float
    n: int


@lru_cache(maxsize=1)
def _words() -> tuple[re.Pattern[str], dict[str, str]]:
    """A pattern that finds any word for a thing, longest first, and the thing that each word means."""
    meaning = {}
    for thing in THINGS:
        for word in (thing.name, thing.plural, *thing.synonyms, *(synonym + "s" for synonym in thing.synonyms)):
            meaning[word] = thing.name
    longest_first = sorted(meaning, key=len, reverse=True)
    return re.compile(r"\b(" + "|".join(map(re.escape, longest_first)) + r")\b", re.IGNORECASE), meaning


def named_things(text: str) -> set[str]:
    """The things that a text names, in singular or plural or by a synonym, in any case."""
    pattern, meaning = _words()
    return {meaning[match.lower()] for match in pattern.findall(text)}


def score(texts_by_image: Mapping[Image, str], truth: Mapping[Image, Iterable[str]]) -> CaptionTruth:
    """Score one text per image.

    Args:
        texts_by_image: image (any key, such as its id) to text.
        truth: the same keys to the names of the things present; images without a text are not counted.

    Raises:
        NothingToScoreError: if there is no text, or an image's truth is unknown.
    """
    if not texts_by_image:
        raise NothingToScoreError("There is no caption to score.")
    present_count = named_count = right_count = 0
    for image, text in texts_by_image.items():
        if image not in truth:
            raise NothingToScoreError(f"The truth about image {image!r} is unknown: it is from another picture book.")
        present, named = set(truth[image]), named_things(text)
        present_count += len(present)
        named_count += len(named)
        right_count += len(present & named)
    return CaptionTruth(
        named_share=right_count / present_count if present_count else 1.0,
        right_share=right_count / named_count if named_count else 1.0,
        n=len(texts_by_image),
    )


def read_truth(path: Path, key: str = "image_id") -> dict[str, list[str]]:
    """Read a picture book's ``truth.parquet``: image to things present.

    Args:
        path: the Parquet file.
        key: ``"image_id"`` (SHA-256 of the image's bytes) or ``"image"`` (file name).
    """
    import pyarrow.parquet as pq

    table = pq.read_table(path, columns=[key, "things"])
    return dict(zip(table[key].to_pylist(), table["things"].to_pylist(), strict=True))
