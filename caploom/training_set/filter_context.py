"""What a filter is: two phases, the context that the first one has, and what the second one gives."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np
import pyarrow as pa

from caploom.storage.store import Store

_T = TypeVar("_T")


class Scan(Protocol):
    """All captions of a training set, to be looked at bucket by bucket as often as a filter needs."""

    def each(self, look: Callable[[pa.Table], _T], *, loads_model: bool = False) -> Iterator[_T]:
        """What `look` finds in each bucket, in their order.

        A bucket is a table of image_id, source, place, caption, image and path. `look` may be called in other
        processes: it finds numbers rather than captions. `loads_model` says that it wants a GPU where there are some.
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
    """A scan of what `narrow` leaves of each bucket."""

    scan: Scan
    narrow: Callable[[pa.Table], pa.Table]

    def each(self, look: Callable[[pa.Table], _T], *, loads_model: bool = False) -> Iterator[_T]:
        """As `Scan`."""
        narrow = self.narrow
        return self.scan.each(lambda captions: look(narrow(captions)), loads_model=loads_model)


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
