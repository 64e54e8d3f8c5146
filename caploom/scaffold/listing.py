"""The names of a folder's files, as many as can be listed in seconds."""

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, islice

from caploom.readers.caption_rows import suffix_of
from caploom.readers.caption_tables import TABLE_SUFFIXES
from caploom.readers.image_names import IMAGE_SUFFIXES
from caploom.storage.paths import is_url, list_files, name_of

MOST_NAMES = 100_000
"""Files that are listed; of a larger folder it is only known that it has at least so many."""

TAR_SUFFIXES = (".tar", ".tgz", ".tbz2", ".txz")
_COMPRESSED = (".gz", ".bz2", ".xz", ".zst")
_MOST_BESIDE = 2_000  # of a folder that is looked into for tables beside its images


@dataclass(frozen=True)
class Listing:
    """Files below a folder, sorted, with their whole paths or URLs; hidden ones are left out.

    Attributes:
        folder: the folder itself.
        files: its files; when there are too many, the first ones, and the tables that lie near the top.
        complete: whether these are all.
    """

    folder: str
    files: tuple[str, ...]
    complete: bool

    @classmethod
    def of(cls, folder: str) -> "Listing":
        """List a folder. Raises `SourceError` when it cannot be read."""
        listed = (file.uri for file in list_files(folder))
        first = list(islice(listed, MOST_NAMES))
        beyond = next(listed, None)
        if beyond is None:
            return cls(folder, tuple(sorted(first)), complete=True)
        # A table that comes after all these images is what matters most.
        others = chain([beyond], listed) if is_url(folder) else _near_the_top(folder)
        tables = {uri for uri in others if suffix_of(uri) in TABLE_SUFFIXES}
        return cls(folder, tuple(sorted({*first, *tables})), complete=False)

    @cached_property
    def known(self) -> frozenset[str]:
        """The files as a set."""
        return frozenset(self.files)

    @cached_property
    def images(self) -> list[str]:
        """Files that are images by their names."""
        return [uri for uri in self.files if suffix_of(uri) in IMAGE_SUFFIXES]

    @cached_property
    def tables(self) -> list[str]:
        """Files that may be tables, those nearest to the top first, without those that belong to one image."""
        stems = {uri.rpartition(".")[0] for uri in self.images}
        found = [uri for uri in self.files if suffix_of(uri) in TABLE_SUFFIXES and uri.rpartition(".")[0] not in stems]
        return sorted(found, key=lambda uri: (uri.count("/"), uri))

    @cached_property
    def tars(self) -> list[str]:
        """Tars, also compressed ones."""
        return [uri for uri in self.files if suffix_of(uri) in TAR_SUFFIXES or is_compressed_tar(uri)]

    @cached_property
    def folders(self) -> list[str]:
        """The folder and those below it that have files, those with the most files first."""
        counts: Counter[str] = Counter()
        for uri in self.files:
            parent = uri.rpartition("/")[0]
            while len(parent) > len(self.folder):
                counts[parent] += 1
                parent = parent.rpartition("/")[0]
        return [self.folder, *(parent for parent, _ in counts.most_common(200))]

    @cached_property
    def endings(self) -> Counter[str]:
        """How many files have each ending."""
        return Counter(suffix_of(uri) or "no ending" for uri in self.files)

    def endings_text(self) -> str:
        """`3 .pdf, 1 .docx`: the most frequent endings."""
        return ", ".join(f"{count:,} {'with ' if ' ' in ending else ''}{ending}" for ending, count in self._most())

    def _most(self) -> list[tuple[str, int]]:
        return self.endings.most_common(4)


def is_compressed_tar(uri: str) -> bool:
    """Whether this is, by its name, a tar that must be decompressed first."""
    name = name_of(uri).lower()
    return name.endswith(TAR_SUFFIXES[1:]) or any(name.endswith(f".tar{ending}") for ending in _COMPRESSED)


def _near_the_top(folder: str) -> Iterator[str]:
    """Files of a local folder and of the folders in it, a bounded number of each."""
    below = []
    for entry in _scanned(folder):
        if entry.is_dir(follow_symlinks=False):
            below.append(entry.path)
        else:
            yield entry.path
    for each in below[:_MOST_BESIDE]:
        yield from (entry.path for entry in _scanned(each) if entry.is_file())


def _scanned(folder: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return [entry for entry in islice(entries, _MOST_BESIDE) if not entry.name.startswith(".")]
    except OSError:
        return []
