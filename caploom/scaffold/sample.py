"""Reads the first rows of a source with its own reader: what the YAML will read, before it is written."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import islice
from time import monotonic

from caploom.errors import SourceError
from caploom.images.location import Location
from caploom.readers.source_row import SourceRow
from caploom.storage.paths import exists

MOST_ROWS = 100_000
"""Rows of a local source that are read; of a larger one it is only known that it has at least so many."""
MOST_FAR_ROWS = 2_000
"""The same for a URL, where reading takes longer."""
MOST_SECONDS = 10.0
"""No more rows are read after this time, such as from a slow disk."""

_LOOKED_UP = 200
_FAR_LOOKED_UP = 16
_UNUSABLE = "unusable"


@dataclass
class Sample:
    """What the first rows of a source are.

    Attributes:
        rows: rows read.
        images: different images among them.
        captions: rows with a caption.
        uncaptioned: rows of images without one.
        faults: unusable rows by reason.
        examples: a sentence for each of these reasons.
        missing: of the first `looked_up` images, those whose files are not there.
        complete: whether these are all rows.
    """

    rows: int = 0
    images: int = 0
    captions: int = 0
    uncaptioned: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)
    missing: int = 0
    looked_up: int = 0
    complete: bool = True


def sample_rows(rows: Iterable[SourceRow], *, far: bool) -> Sample:
    """Read the first rows; `far` is a source behind a URL. Raises `SourceError` where the reader does."""
    most = MOST_FAR_ROWS if far else MOST_ROWS
    sample, seen = Sample(), dict[str, None]()
    source, began = iter(rows), monotonic()
    while sample.rows < most and monotonic() - began < MOST_SECONDS and (row := next(source, None)) is not None:
        sample.rows += 1
        if row.path is None or (row.reason is not None and not row.lacks_only_a_caption):
            reason = row.reason or _UNUSABLE
            sample.faults[reason] += 1
            sample.examples.setdefault(reason, row.detail or reason)
            continue
        seen.setdefault(row.path)
        sample.captions += row.reason is None
        sample.uncaptioned += row.reason is not None
    sample.images = len(seen)
    sample.complete = next(source, None) is None
    for path in islice(seen, _FAR_LOOKED_UP if far else _LOOKED_UP):
        uri = Location.parse(path).uri
        sample.looked_up += 1
        sample.missing += not _is_there(uri)
    return sample


def _is_there(uri: str) -> bool:
    try:
        return exists(uri)
    except SourceError:  # a name that is too long, for one
        return False
