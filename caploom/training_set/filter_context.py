"""The interface of filters: two phases, the context of the first one, and the result of the second one."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np
import pyarrow as pa

from caploom.errors import TrainingError
from caploom.storage.store import Store

_T = TypeVar("_T")


class Scan(Protocol):
    """All captions of a training set, to be scanned bucket by bucket as often as a filter needs."""

    def each(self, look: Callable[[pa.Table], _T], *, loads_model: bool = False) -> Iterator[_T]:
        """The results of `look` for all buckets, in their order.

        A bucket is a table of image_id, source, place, caption, image and path. `look` may be called in other
        processes: it returns numbers rather than captions. `loads_model` requests a GPU where there are some.
        """
        ...


@dataclass(frozen=True)
class Passes:
    """The scan of buckets in this process; `tables` starts a pass."""

    tables: Callable[[], Iterator[pa.Table]]

    def each(self, look: Callable[[pa.Table], _T], *, loads_model: bool = False) -> Iterator[_T]:
        """As `Scan`."""
        return map(look, self.tables())


@dataclass(frozen=True)
class Narrowed:
    """A scan of each bucket narrowed by `narrow`."""

    scan: Scan
    narrow: Callable[[pa.Table], pa.Table]

    def each(self, look: Callable[[pa.Table], _T], *, loads_model: bool = False) -> Iterator[_T]:
        """As `Scan`."""
        narrow = self.narrow
        return self.scan.each(lambda captions: look(narrow(captions)), loads_model=loads_model)


class Scorer(Protocol):
    """A loaded model that scores how well captions fit their images; `device` is where it runs."""

    @property
    def device(self) -> Any:
        """Where it runs."""
        ...

    def score(self, captions: pa.Table) -> np.ndarray:
        """float32 of shape (captions,); NaN where an image cannot be read. `captions` as `Scan` has them."""
        ...


LoadScorer = Callable[[Any], Scorer]
"""Loads the model of a scoring filter, from its settings."""


def _no_scorer(step: Any) -> Scorer:
    raise TrainingError(f"The filter {step.filter} needs a model to score with, and none can be loaded here.")


@dataclass(frozen=True)
class FilterContext:
    """What filters may use in addition to the captions: the store of the scores, the recipe's name and captioners.

    `load_scorer` loads the scoring model when there are captions to score.
    """

    store: Store
    recipe: str
    captioners: Sequence[str]
    load_scorer: LoadScorer = _no_scorer


class Prepared(Protocol):
    """A filter that is ready to judge."""

    def drops(self, captions: pa.Table) -> Mapping[str, np.ndarray]:
        """Which rows of a bucket are dropped, bool of shape (captions,), by reason; a row has at most one reason."""
        ...
