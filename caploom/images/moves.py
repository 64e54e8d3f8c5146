"""Where recorded images lie now: pictures and stores move, and what is recorded of them stays as it is.

Tables keep the location that an image had when its source was first read. `Moves` translates it to the present one
where an image is opened, and the present one of new rows to what would have been recorded then.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import pyarrow as pa

PACK = "images.pack"
"""Images one after another, in the store: of those that later stages may not or cannot read where they lie."""

_PACK = re.compile(rf".*/(raw_pairs/[^/]+/[^/]+/[0-9a-f]+/{re.escape(PACK)}(?:#bytes=\d+\+\d+)?)\Z", re.DOTALL)

Folders = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Moves:
    """The folders whose images may have moved.

    Attributes:
        folders: (recorded, present) paths or URLs. Of nested ones the inner one counts, so that an inner one that
            stayed is listed too.
        store: path or URL that packs lie below, wherever they were written; empty leaves them where they are said
            to be.

    Example:
        >>> Moves((("/old/cats", "/new/cats"),)).present("/old/cats/1.jpg")
        '/new/cats/1.jpg'
    """

    folders: Folders = ()
    store: str = ""

    def present(self, location: str) -> str:
        """Where a recorded location is now."""
        if self.store and PACK in location and (found := _PACK.match(location)):
            return f"{self.store}/{found[1]}"
        return _replaced(location, self._to_present)

    def recorded(self, location: str) -> str:
        """What the location of a new row would have been when its source was first read."""
        return _replaced(location, self._to_recorded)

    def of_table(self, table: pa.Table) -> pa.Table:
        """The table with its column `path` as locations of now."""
        return self._mapped(table, self.present) if self._has_moved or self.store else table

    def _mapped(self, table: pa.Table, of: Callable[[str], str]) -> pa.Table:
        paths = pa.array([of(path) for path in table["path"].to_pylist()], pa.string())
        return table.set_column(table.schema.get_field_index("path"), table.schema.field("path"), paths)

    @cached_property
    def _has_moved(self) -> bool:
        return any(recorded != present for recorded, present in self.folders)

    @cached_property
    def _to_present(self) -> Folders:
        return _longest_first(self.folders) if self._has_moved else ()

    @cached_property
    def _to_recorded(self) -> Folders:
        backwards = tuple((present, recorded) for recorded, present in self.folders)
        return _longest_first(backwards) if self._has_moved else ()


STAYED = Moves()
"""Everything is where it is said to be."""


def _longest_first(folders: Folders) -> Folders:
    plain = {(before.rstrip("/"), after.rstrip("/")) for before, after in folders}
    return tuple(sorted(plain, key=lambda pair: (-len(pair[0]), pair[0] == pair[1], pair)))


def _replaced(location: str, folders: Folders) -> str:
    for before, after in folders:
        if location.startswith(before) and location[len(before) : len(before) + 1] == "/":
            return after + location[len(before) :]
    return location
