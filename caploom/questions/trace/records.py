"""The parts of an image's trace."""

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class TracedPair:
    """A raw caption of the image. `is_latest`, here and below, means that the artifact has no newer version."""

    caption: str
    pair_id: str
    image: str
    path: str
    width: int
    height: int
    shard: str
    row: int
    address: str
    started: str
    is_latest: bool


@dataclass(frozen=True)
class TracedShear:
    """The part of a caption that a shear kept: the whole text is `before` + `kept` + `after`."""

    steps: str
    before: str
    kept: str
    after: str
    source_words: int
    words: int
    address: str
    started: str
    is_latest: bool


@dataclass(frozen=True)
class TracedCaption:
    """A generated caption of the image, unsheared. `address` is empty while its shard is in progress."""

    captioner: str
    fingerprint: str
    configured: str
    prompt: str | None
    text: str
    tokens: int | None
    finish_reason: str
    attempt: int
    shard: str
    address: str
    started: str
    is_latest: bool
    sheared: tuple[TracedShear, ...] = ()


@dataclass(frozen=True)
class TracedLanding:
    """One caption of the image in a training set.

    `weight` is the probability that training draws it; None when it was left out, and then `reason` says why.
    """

    source: str
    caption: str
    weight: float | None
    reason: str = ""


@dataclass(frozen=True)
class TracedTrainingSet:
    """A training set made from the image's pairs. `rows` are `(file, row)`, rows from 0; empty where it has none."""

    name: str
    address: str
    started: str
    is_latest: bool
    rows: tuple[tuple[str, int], ...]
    captions: tuple[TracedLanding, ...]


@dataclass(frozen=True)
class TracedRank:
    """The image's ranks in retrieval after a recipe's training; rank 1 is the best.

    `image_to_text` is the rank of the best of its captions when it was the query; `text_to_image` are its captions and
    the rank that it had when each was the query. For a set of classes, `image_to_text` is the rank of its class, and
    `predicted` the class of the highest score.
    """

    recipe: str
    evaluation_set: str
    stage: str
    scoring: str
    image_to_text: int | None
    text_to_image: tuple[tuple[str, int], ...]
    address: str
    label: str | None = None
    predicted: str | None = None


@dataclass(frozen=True)
class TracedFailure:
    """Where the image failed and why."""

    stage: str
    reason: str
    detail: str
    attempt: int
    address: str


@dataclass(frozen=True)
class ImageTrace:
    """The trace. `image_id` is None when the path never became a pair; `notes` are sentences about what is missing."""

    image_id: str | None
    image: str
    path: str
    pairs: tuple[TracedPair, ...] = ()
    captions: tuple[TracedCaption, ...] = ()
    training_sets: tuple[TracedTrainingSet, ...] = ()
    evaluation_sets: tuple[str, ...] = ()
    ranks: tuple[TracedRank, ...] = ()
    failures: tuple[TracedFailure, ...] = ()
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """The form that `--json` prints."""
        return asdict(self)
