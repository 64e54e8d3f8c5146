"""What readers have in common."""

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from typing import ClassVar

from caploom.common.settings import Settings
from caploom.readers.source_row import SourceRow


class SourceReader(Settings):
    """What all readers have."""

    locations: ClassVar[frozenset[str]] = frozenset()
    """Fields that only say where its files lie: elsewhere, the same files are the same source."""

    @property
    def attribution(self) -> str | None:
        """The attribution that pages with the pictures must show; None where it is unknown, or one for each image."""
        return None


class FilesReader(SourceReader):
    """A reader of files that a pattern names, one after another."""

    def prepare(self) -> None:
        """Check that there is a file; raises `SourceError`."""
        self.uris()

    @abstractmethod
    def uris(self) -> list[str]:
        """The paths or URLs of the files."""

    def rows(self) -> Iterator[SourceRow]:
        """A row for each image and caption of the files, in their order. The images themselves are not read."""
        return self.rows_of(self.uris())

    @abstractmethod
    def rows_of(self, files: Sequence[str]) -> Iterator[SourceRow]:
        """The rows of these files; what is damaged is a bad row. Raises `SourceError` when one cannot be read."""
