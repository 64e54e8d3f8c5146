"""Where the tasks of a merge exchange files: a folder that all nodes share, or a prefix in a bucket."""

import shutil
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol, cast

from caploom.errors import StoreError
from caploom.storage.bucket import Bucket, at_once
from caploom.storage.object_store import ObjectStore
from caploom.storage.paths import read_range
from caploom.storage.store import Store
from caploom.training_set.spill import full_spill_explained

_AT_ONCE = 8  # requests to a bucket
_READ_AHEAD = 2**20


class Exchange(Protocol):
    """Files by name, each written completely or not at all; a repeated task writes the same again."""

    def check(self) -> None:
        """Raise `StoreError` when it cannot be reached from here."""
        ...

    def writing(self, name: str) -> AbstractContextManager[Path]:
        """A local path to write, which becomes the file of this name when the block succeeds."""
        ...

    def opened(self, name: str) -> BinaryIO:
        """A file, opened for reading, seekable."""
        ...

    def ranges(self, name: str, ranges: Sequence[tuple[int, int]]) -> Iterator[bytes]:
        """Parts of a file: (start, size) each."""
        ...

    def give(self, names: Sequence[str], folder: Path) -> None:
        """Move files to a folder of this machine."""
        ...

    def clear(self) -> None:
        """Delete everything."""
        ...


def exchange_for(store: Store, fingerprint: str, draft: Path, spill: Path | None) -> Exchange:
    """The exchange of a merge: in the store's bucket, in the folder of the setting `spill`, or in the draft's."""
    name = f"{fingerprint[:16]}.{uuid.uuid4().hex[:8]}"
    if isinstance(store, ObjectStore):
        return BucketPrefix(store.bucket.url, f".merging/{name}")
    folder = (spill or draft).resolve() / f".merging.{name}"
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        raise StoreError(
            f"{folder.parent}: no folder can be created there ({error.strerror}); change `merge.spill`."
        ) from None
    return SharedFolder(folder)


@dataclass(frozen=True)
class SharedFolder:
    """An exchange in a folder that every node sees at the same path."""

    folder: Path

    def check(self) -> None:
        """Raise `StoreError` when this node cannot access the folder."""
        if not self.folder.is_dir():
            raise StoreError(
                f"{self.folder.parent}: a node of the Ray cluster cannot access it; put the store (and `merge.spill`) "
                "in a folder that all nodes share, or at a URL."
            )

    @contextmanager
    def writing(self, name: str) -> Iterator[Path]:
        """As `Exchange`."""
        path = self.folder / f".{name}.{uuid.uuid4().hex[:8]}"
        try:
            with full_spill_explained(self.folder.parent):
                yield path
                path.replace(self.folder / name)
        finally:
            path.unlink(missing_ok=True)

    def opened(self, name: str) -> BinaryIO:
        """As `Exchange`."""
        return (self.folder / name).open("rb")

    def ranges(self, name: str, ranges: Sequence[tuple[int, int]]) -> Iterator[bytes]:
        """As `Exchange`."""
        with self.opened(name) as file:
            for start, size in ranges:
                file.seek(start)
                yield file.read(size)

    def give(self, names: Sequence[str], folder: Path) -> None:
        """As `Exchange`; a rename, unless the setting `spill` names another disk."""
        for name in names:
            shutil.move(self.folder / name, folder / name)

    def clear(self) -> None:
        """As `Exchange`."""
        shutil.rmtree(self.folder, ignore_errors=True)


@dataclass(frozen=True)
class BucketPrefix:
    """An exchange in the bucket of a store at a URL."""

    url: str
    prefix: str

    def check(self) -> None:
        """A bucket reports faults on use."""

    @contextmanager
    def writing(self, name: str) -> Iterator[Path]:
        """As `Exchange`."""
        with tempfile.TemporaryDirectory(prefix="caploom-merge-") as folder:
            path = Path(folder, name)
            with full_spill_explained(Path(folder).parent):
                yield path
            Bucket(self.url).upload(path, f"{self.prefix}/{name}")

    def opened(self, name: str) -> BinaryIO:
        """As `Exchange`."""
        return cast(BinaryIO, Bucket(self.url).open(f"{self.prefix}/{name}", _READ_AHEAD))

    def ranges(self, name: str, ranges: Sequence[tuple[int, int]]) -> Iterator[bytes]:
        """As `Exchange`, with several requests at once."""
        url = Bucket(self.url).url_of(f"{self.prefix}/{name}")
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            yield from pool.map(lambda each: read_range(url, *each), ranges)

    def give(self, names: Sequence[str], folder: Path) -> None:
        """As `Exchange`."""
        at_once(Bucket(self.url).download, [(f"{self.prefix}/{name}", folder / name) for name in names])

    def clear(self) -> None:
        """As `Exchange`."""
        bucket = Bucket(self.url)
        for key in bucket.list(self.prefix):
            bucket.delete(key)
