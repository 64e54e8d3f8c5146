"""What a filter is: two phases, the context that the first one has, and what the second one gives."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pyarrow as pa

from caploom.store import Store

Scan = Callable[[], Iterator[pa.Table]]
"""Starts a pass over all buckets' captions: tables of image_id, source, place, caption, image and path, in order."""


@dataclass(frozen=True)
class FilterContext:
    """What filters may use besides the captions: the store that keeps scores, and the recipe's name and captioners."""

    store: Store
    recipe: str
    captioners: Sequence[str]


class Prepared(Protocol):
    """A filter that is ready to judge."""

    def drops(self, captions: pa.Table) -> Mapping[str, np.ndarray]:
        """Which rows of a bucket are dropped, bool of shape (captions,), by reason; a row has one reason at most."""
        ...
