"""The mixes: with which probability training draws each of an image's captions, for a whole bucket of images at once.

A strategy is one function and one line in `MIXES`. What is decided only when training draws (several positives, a
random sentence, the source's prefix) is a `Drawing` in the files' metadata.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from caploom.common.names import RAW_SOURCE
from caploom.storage.records import TRAINING_ROWS
from caploom.training_set.caption_columns import image_starts, text_column
from caploom.training_set.settings import MixSettings


@dataclass(frozen=True)
class CaptionGroups:
    """The captions of some images, grouped by image.

    Attributes:
        owner: int64 of shape (captions,), the index of a caption's image, in ascending order.
        source: int64 of shape (captions,), the index of a caption's source in `names`.
        names: the sources.
    """

    owner: np.ndarray
    source: np.ndarray
    names: list[str]

    def per_image(self, counted: np.ndarray) -> np.ndarray:
        """float64 of shape (captions,): for each caption the sum of `counted` (captions,) over its image."""
        images = int(self.owner[-1]) + 1 if len(self.owner) else 0
        return np.asarray(np.bincount(self.owner, weights=counted, minlength=images)[self.owner])

    def per_image_and_source(self) -> np.ndarray:
        """int64 of shape (captions,): how many captions its image has of a caption's source."""
        _, group, counts = np.unique(
            self.owner * max(1, len(self.names)) + self.source, return_inverse=True, return_counts=True
        )
        return np.asarray(counts[group])


def uniform(groups: CaptionGroups, mix: MixSettings) -> np.ndarray:
    """Each caption of an image is as likely as the next (LaCLIP)."""
    return np.asarray(1 / groups.per_image(np.ones(len(groups.owner))))


def raw_probability(groups: CaptionGroups, mix: MixSettings) -> np.ndarray:
    """A raw caption with probability p, else one of the captioners' (VeCLIP; Recap-DataComp-1B with p = 0.8).

    An image that has only one of the two kinds gives it all the probability.
    """
    probability = mix.raw_probability or 0.0
    is_raw = (np.asarray(groups.names, dtype=object) == RAW_SOURCE)[groups.source]
    raw, other = groups.per_image(is_raw), groups.per_image(~is_raw)
    both = np.where(is_raw, probability / np.maximum(raw, 1), (1 - probability) / np.maximum(other, 1))
    return np.asarray(np.where((raw > 0) & (other > 0), both, 1 / (raw + other)))


def weights(groups: CaptionGroups, mix: MixSettings) -> np.ndarray:
    """A source's weight is shared by its captions of the image; an image's weights are scaled to add up to 1.

    An image whose captions all weigh 0 draws uniformly among them, because a step has to draw something.
    """
    given = np.array([(mix.weights or {}).get(name, 0.0) for name in groups.names])
    shared = given[groups.source] / groups.per_image_and_source()
    total = groups.per_image(shared)
    return np.where(total > 0, shared / np.where(total > 0, total, 1), uniform(groups, mix))


MIXES: dict[str, Callable[[CaptionGroups, MixSettings], np.ndarray]] = {
    "uniform": uniform,
    "raw_probability": raw_probability,
    "weights": weights,
    "multi_positive": uniform,
    "concatenate": uniform,  # its rows hold one caption each, so that there is nothing to draw
}
"""The weight of each caption, float64 of shape (captions,), adding up to 1 over an image."""


def training_rows(captions: pa.Table, mix: MixSettings) -> pa.Table:
    """Rows of `TRAINING_ROWS`, in the order of `captions` and with the mix's `Drawing` in the schema's metadata.

    `captions` has the columns image_id, source, caption, image and path, grouped by image. One row per image; with the
    mix `concatenate`, one per caption.
    """
    columns = {name: text_column(captions, name) for name in ("image_id", "source", "caption", "image", "path")}
    count = len(captions)
    starts = image_starts(columns["image_id"])
    if mix.strategy == "concatenate":
        starts = np.arange(count)
    owner = np.repeat(np.arange(len(starts)), np.diff(np.append(starts, count)))
    encoded = columns["source"].dictionary_encode()
    groups = CaptionGroups(owner, encoded.indices.to_numpy().astype(np.int64), encoded.dictionary.to_pylist())
    weight = MIXES[mix.strategy](groups, mix).astype(np.float32)
    offsets = pa.array(np.append(starts, count).astype(np.int32))
    first = pa.array(starts)
    arrays = [columns[name].take(first) for name in ("image_id", "image", "path")] + [
        pa.ListArray.from_arrays(offsets, values)
        for values in (columns["caption"], columns["source"], pa.array(weight, pa.float32()))
    ]
    fields = [array.cast(field.type) for array, field in zip(arrays, TRAINING_ROWS, strict=True)]
    return pa.Table.from_arrays(fields, schema=TRAINING_ROWS.with_metadata(mix.drawing.metadata()))
