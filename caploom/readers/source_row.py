"""The rows that readers yield (separate from the Arrow schemas, so that reading the YAML needs no Arrow)."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SourceRow:
    """One row as the user wrote it, before anything is checked.

    `row` counts from 1 in the user's own file. A row that is bad already carries its `reason` (a short word to count
    by) and `detail` (one sentence); `path`, the image's absolute path, is then None and must not be opened, unless all
    that the row lacks is a caption.
    """

    row: int
    image: str
    caption: str | None
    path: str | None
    reason: str | None = None
    detail: str | None = None

    @property
    def lacks_only_a_caption(self) -> bool:
        """Whether it is an image that came without a caption, which is a fault only where one is needed."""
        return self.reason is not None and self.path is not None
