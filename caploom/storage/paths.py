"""Where a user's files lie, in a local folder or in object storage, as one kind of text.

A `uri` is an absolute local path or a URL that fsspec knows (`s3://bucket/key`, `gs://...`, `memory://...`).
"""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO, cast

from pydantic import BeforeValidator, ValidationInfo

from caploom.common.settings import resolve_path
from caploom.common.text import first_line
from caploom.errors import SourceError

if TYPE_CHECKING:
    from fsspec.spec import AbstractFileSystem


def resolve_uri(value: Any, info: ValidationInfo) -> Any:
    """Make a path of the YAML absolute, as `resolve_path` does; a URL stays as it is."""
    if isinstance(value, str) and is_url(value):
        return value.rstrip("/") if not value.endswith("://") else value
    resolved = resolve_path(value, info)
    return str(resolved) if isinstance(resolved, Path) else resolved


def resolve_store(value: Any, info: ValidationInfo) -> Any:
    """Make a local folder of the YAML absolute and a `Path`; a URL stays a text."""
    return resolve_uri(value, info) if isinstance(value, str) and is_url(value) else resolve_path(value, info)


UriOrPath = Annotated[str, BeforeValidator(resolve_uri)]
"""The type of a YAML key that names a local path or a URL."""

_EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gs", "gcs": "gs"}
"""The extra of Caploom that reads URLs of a scheme."""

_MOST_FOLDERS = 65_536  # kept in memory


@dataclass(frozen=True, slots=True)
class ListedFile:
    """A file of a folder.

    Attributes:
        uri: its path or URL.
        size: bytes.
        modified: a text that changes when the file is written again.
        identity: a text that a renamed file keeps, and no other file of its folder has.
    """

    uri: str
    size: int
    modified: str
    identity: str


def is_url(uri: str) -> bool:
    """Whether this is a URL of object storage and not a local path."""
    scheme, separator, _ = uri.partition("://")
    return bool(separator) and scheme.replace("+", "").isalnum()


def name_of(uri: str) -> str:
    """The last part of a path or URL."""
    return uri.rstrip("/").rpartition("/")[2]


def folder_of(uri: str) -> str:
    """The folder that a file lies in."""
    return uri.rpartition("/")[0] or "/"


class PathResolver:
    """Resolves paths below a root, millions of them: each folder is resolved once."""

    def __init__(self, root: str) -> None:
        self._url = root.rstrip("/") if is_url(root) else None
        self._root = os.path.realpath(root)
        self._inside = self._root.rstrip("/") + "/"
        self._folders: dict[str, str] = {}

    def resolve(self, relative: str) -> str | None:
        """The path or URL `relative` below the root; None when `..`, an absolute path or a link would leave it."""
        if "\0" in relative:
            return None
        if self._url is not None:
            parts = [part for part in relative.split("/") if part not in ("", ".")]
            if relative.startswith("/") or ".." in parts or not parts:
                return None
            return "/".join([self._url, *parts])
        path = self._resolved(relative)
        return path if path.startswith(self._inside) else None

    def _resolved(self, relative: str) -> str:
        """The real path, so that neither `..` nor a link inside the root can reach a file outside it."""
        folder, slash, name = relative.rpartition("/")
        if name in ("", ".", "..") or (slash and not folder):
            return os.path.realpath(os.path.join(self._root, relative))  # noqa: PTH118 - millions of them
        real = self._folders.get(folder)
        if real is None:
            if len(self._folders) >= _MOST_FOLDERS:
                self._folders.clear()
            real = self._folders[folder] = os.path.realpath(os.path.join(self._root, folder))  # noqa: PTH118
        path = f"{real.rstrip('/')}/{name}"
        return os.path.realpath(path) if os.path.islink(path) else path  # noqa: PTH114


def file_at(uri: str) -> ListedFile:
    """What is known of one file without reading it; raises `SourceError` when it is not there."""
    with _explained(uri):
        if is_url(uri):
            filesystem, path = file_system(uri)
            filesystem.invalidate_cache(folder_of(path))
            return _listed_object(uri, filesystem.info(path))
        return _listed_file(uri, Path(uri).stat())


def open_uri(uri: str) -> BinaryIO:
    """Open a file for reading, seekable; raises `SourceError` when it cannot be."""
    with _explained(uri):
        if is_url(uri):
            filesystem, path = file_system(uri)
            return cast(BinaryIO, filesystem.open(path, "rb"))
        return Path(uri).open("rb")


def read_range(uri: str, offset: int, length: int) -> bytes:
    """A range of a URL's bytes, and not a byte more: opening it would read ahead by megabytes."""
    with _explained(uri):
        filesystem, path = file_system(uri)
        return bytes(filesystem.cat_file(path, start=offset, end=offset + length))


def exists(uri: str) -> bool:
    """Whether there is such a file or folder; raises `SourceError` when that cannot be found out."""
    return _asked(uri, "exists", Path.exists)


def is_folder(uri: str) -> bool:
    """Whether this is a folder (a prefix with objects below it); raises `SourceError` when that cannot be found out."""
    return _asked(uri, "isdir", Path.is_dir)


def _asked(uri: str, method: str, local: Callable[[Path], bool]) -> bool:
    with _explained(uri):
        if not is_url(uri):
            return local(Path(uri))
        filesystem, path = file_system(uri)
        return bool(getattr(filesystem, method)(path))


def list_files(folder: str, unreadable: Callable[[str], None] | None = None) -> Iterator[ListedFile]:
    """Every file below a folder, sorted by path, except hidden files and links that leave the folder.

    Files and folders that disappear meanwhile are left out; so are unreadable subfolders, for which `unreadable` is
    called. Raises `SourceError` when the folder itself cannot be read.
    """
    if is_url(folder):
        yield from _list_objects(folder)
        return
    with _explained(folder):
        entries = _entries(folder)
    yield from _list_folder(entries, os.path.realpath(folder), unreadable)


def file_system(uri: str) -> tuple["AbstractFileSystem", str]:
    """fsspec's file system of a URL and the path in it; raises `SourceError` when its package is missing."""
    import fsspec

    try:
        return cast("tuple[AbstractFileSystem, str]", fsspec.core.url_to_fs(uri))
    except ImportError as error:
        scheme = uri.partition("://")[0]
        extra = _EXTRAS.get(scheme)
        how = f"; pip install 'caploom[{extra}]'" if extra else f" ({error})"
        raise SourceError(f"{uri}: {scheme}:// needs a package that is not installed{how}.") from None
    except ValueError as error:
        raise SourceError(f"{uri}: this URL cannot be read ({error}); correct it.") from None


def _entries(folder: str) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as found:
        return sorted((each for each in found if not each.name.startswith(".")), key=attrgetter("name"))


def _list_folder(
    entries: list[os.DirEntry[str]], root: str, unreadable: Callable[[str], None] | None
) -> Iterator[ListedFile]:
    for entry in entries:
        try:
            if entry.is_symlink() and not os.path.realpath(entry.path).startswith(root.rstrip("/") + "/"):
                continue
            if entry.is_dir():
                # A linked folder would be listed twice, or forever.
                below = [] if entry.is_symlink() else _entries(entry.path)
            elif entry.is_file():
                yield _listed_file(entry.path, entry.stat())
                continue
            else:
                continue
        except FileNotFoundError:
            continue
        except OSError:
            if unreadable is not None:
                unreadable(entry.path)
            continue
        yield from _list_folder(below, root, unreadable)


def _list_objects(folder: str) -> Iterator[ListedFile]:
    filesystem, path = file_system(folder)
    scheme = folder.partition("://")[0]
    with _explained(folder):
        if not filesystem.exists(path):
            raise FileNotFoundError(2, os.strerror(2))
        filesystem.invalidate_cache(path)
        found = filesystem.find(path, detail=True)
    for name, info in sorted(found.items()):
        below = name[len(path.rstrip("/")) :].split("/")
        if any(part.startswith(".") for part in below) or info.get("type") == "directory":
            continue
        yield _listed_object(f"{scheme}://{name.lstrip('/')}", info)


def _listed_file(path: str, status: os.stat_result) -> ListedFile:
    return ListedFile(path, status.st_size, str(status.st_mtime_ns), f"{status.st_dev}:{status.st_ino}")


def _listed_object(uri: str, info: Mapping[str, Any]) -> ListedFile:
    version = info.get("ETag") or info.get("etag") or info.get("LastModified") or info.get("mtime")
    modified = str(version or info.get("created") or "")
    # Objects are not renamed but copied: only a hash of the content, as an ETag usually is, identifies them.
    identity = str(info.get("ETag") or info.get("etag") or uri)
    return ListedFile(uri, int(info.get("size") or 0), modified, identity)


@contextmanager
def _explained(uri: str) -> Iterator[None]:
    try:
        yield
    except SourceError:
        raise
    except FileNotFoundError:
        raise SourceError(f"{uri}: there is no such file or folder; correct its path.") from None
    except OSError as error:
        why = error.strerror or str(error)
        raise SourceError(f"{uri}: it cannot be read ({why}); check that it exists and its permissions.") from None
    except Exception as error:  # storage services raise errors without a common base class
        if not is_url(uri):
            raise
        raise SourceError(
            f"{uri}: the storage refused or failed ({first_line(error)}); check URL and permissions."
        ) from None
