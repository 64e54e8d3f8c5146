"""A prefix of object storage: puts, fetches, lists and deletes whole objects, with retries and one-sentence errors.

Neither renames nor locks are assumed. Credentials come from the environment, as each storage's own fsspec package reads
them (`AWS_*`, `AWS_ENDPOINT_URL`, `GOOGLE_APPLICATION_CREDENTIALS`, ...).
"""

import errno
import logging
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_random_exponential

from caploom.common.text import first_line
from caploom.errors import SourceError, StoreError
from caploom.storage.paths import file_system

_T = TypeVar("_T")
_PERMANENT = (FileNotFoundError, FileExistsError, PermissionError, IsADirectoryError, NotADirectoryError)
_LOCAL_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
# s3fs and gcsfs also retry by themselves; this is for other storages, and for faults that outlast their retries.
_ATTEMPTS = 3
_AT_ONCE = 8  # requests: each waits for the network and not for a core
# It logs a traceback of every error before raising it.
logging.getLogger("gcsfs").setLevel(logging.CRITICAL)


@dataclass(frozen=True, slots=True)
class StoredObject:
    """An object in a listing: its size, and when it was written, in nanoseconds (0 where that is unknown)."""

    size: int
    written: int


class Bucket:
    """The objects below a URL; keys are relative to it."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")

    def url_of(self, key: str) -> str:
        """The URL of a key."""
        return f"{self.url}/{key}" if key else self.url

    def check(self) -> None:
        """Raise `StoreError` when the bucket does not exist or cannot be reached."""
        filesystem, path = self._at("")
        container = path.strip("/").split("/")[0]
        # Storage in memory has no buckets; other storages do not create buckets on writing.
        if filesystem.protocol in ("memory", ("memory",)) or not container:
            return
        if not self._ask("", lambda: filesystem.exists(container)):
            raise StoreError(f"{self.url}: there is no bucket {container}; create it, or correct the address.")

    def read(self, key: str) -> bytes | None:
        """The bytes of an object; None when there is none."""
        filesystem, path = self._at(key)
        try:
            return bytes(self._ask(key, lambda: filesystem.cat_file(path)))
        except FileNotFoundError:
            return None

    def write(self, key: str, data: bytes) -> None:
        """Put an object, replacing any existing one."""
        filesystem, path = self._at(key)
        self._put(key, lambda: filesystem.pipe_file(path, data))

    def create(self, key: str, data: bytes) -> bool:
        """Put an object unless it exists; False when it does. A storage without conditional writes just puts it."""
        filesystem, path = self._at(key)
        try:
            self._put(key, lambda: filesystem.pipe_file(path, data, mode="create"))
        except FileExistsError:
            return self.read(key) == data  # an earlier attempt without a response did put it
        except (NotImplementedError, TypeError):
            self.write(key, data)
        return True

    def upload(self, file: Path, key: str) -> None:
        """Put a local file; large ones are uploaded in parts."""
        filesystem, path = self._at(key)
        self._put(key, lambda: filesystem.put_file(str(file), path))

    def download(self, key: str, file: Path) -> None:
        """Fetch an object into a local file; raises `FileNotFoundError` when there is none."""
        filesystem, path = self._at(key)
        self._ask(key, lambda: filesystem.get_file(path, str(file)))

    def open(self, key: str, read_ahead: int) -> Any:
        """An object, opened for reading in ranges of at least `read_ahead` bytes."""
        filesystem, path = self._at(key)
        return self._ask(key, lambda: filesystem.open(path, "rb", block_size=read_ahead, cache_type="readahead"))

    def delete(self, key: str) -> None:
        """Delete an object, if there is one."""
        filesystem, path = self._at(key)
        try:
            self._put(key, lambda: filesystem.rm_file(path))
        except FileNotFoundError:
            return

    def list(self, key: str) -> dict[str, StoredObject]:
        """Every object below a key, over all pages of the listing."""
        filesystem, path = self._at(key)
        _, root = self._at("")
        filesystem.invalidate_cache()
        try:
            found: dict[str, dict[str, Any]] = self._ask(key, lambda: filesystem.find(path, detail=True))
        except FileNotFoundError:
            return {}
        start = len(root.strip("/")) + 1
        return {
            name.lstrip("/")[start:]: StoredObject(int(info.get("size") or 0), _written(info))
            for name, info in found.items()
            if info.get("type") != "directory"
        }

    def folders(self, key: str) -> Sequence[str]:
        """The names right below a key: the next part of each key, up to the next slash."""
        filesystem, path = self._at(key)
        filesystem.invalidate_cache()
        try:
            found = self._ask(key, lambda: filesystem.ls(path, detail=True))
        except (FileNotFoundError, NotADirectoryError):
            return []
        return [info["name"].rstrip("/").rpartition("/")[2] for info in found if info["type"] == "directory"]

    def _at(self, key: str) -> tuple[Any, str]:
        try:
            return file_system(self.url_of(key))
        except SourceError as error:
            raise StoreError(str(error)) from None

    def _put(self, key: str, call: Callable[[], Any]) -> None:
        try:
            self._ask(key, call)
        except FileNotFoundError:
            raise StoreError(
                f"{self.url_of(key)}: it cannot be written because its bucket is gone; correct the address."
            ) from None

    def _ask(self, key: str, call: Callable[[], _T]) -> _T:
        attempts = Retrying(
            retry=retry_if_exception(_is_transient),
            stop=stop_after_attempt(_ATTEMPTS),
            wait=wait_random_exponential(multiplier=0.2, max=5),
            reraise=True,
        )
        try:
            return attempts(call)
        except (FileNotFoundError, FileExistsError, NotImplementedError, TypeError):
            raise
        except OSError as error:
            if error.errno in _LOCAL_DISK:
                raise
            raise self._failed(key, error) from None
        except Exception as error:  # noqa: BLE001 - storages raise errors without a common base class
            raise self._failed(key, error) from None

    def _failed(self, key: str, error: Exception) -> StoreError:
        if _is_denied(error):
            return StoreError(
                f"{self.url_of(key)}: the storage denies access ({first_line(error)}); check that the credentials in "
                "the environment are there, have not expired and may read and write there."
            )
        if type(error).__name__ in ("NoCredentialsError", "PartialCredentialsError"):
            return StoreError(
                f"{self.url_of(key)}: the environment has no credentials for it ({first_line(error)}); set them, for "
                "S3 in AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY."
            )
        return StoreError(
            f"{self.url_of(key)}: the storage keeps failing ({first_line(error)}); run again when it responds: "
            "finished artifacts are kept."
        )


def at_once(call: Callable[..., object], arguments: Iterable[tuple[Any, ...]]) -> None:
    """Call a function with each of these arguments, several calls at a time; the first error is raised."""
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        for done in [pool.submit(call, *each) for each in arguments]:
            done.result()


def _is_transient(error: BaseException) -> bool:
    if isinstance(error, _PERMANENT) or not isinstance(error, Exception) or _is_denied(error):
        return False
    if isinstance(error, OSError):
        return error.errno not in _LOCAL_DISK
    return "Timeout" in type(error).__name__ or "Connection" in type(error).__name__


def _is_denied(error: Exception) -> bool:
    # s3fs raises PermissionError; gcsfs an OSError with this prefix, an error with the status, or Google's own.
    google = type(error).__module__.startswith("google.auth")
    forbidden = str(error).startswith("Forbidden") or getattr(error, "code", None) in (401, 403)
    return isinstance(error, PermissionError) or google or forbidden


def _written(told: dict[str, Any]) -> int:
    when = told.get("LastModified") or told.get("mtime") or told.get("updated") or told.get("created")
    if isinstance(when, str):
        try:
            when = datetime.fromisoformat(when)
        except ValueError:
            return 0
    if isinstance(when, datetime):
        return int(when.timestamp() * 1_000_000) * 1000
    return int(when * 1e9) if isinstance(when, int | float) else 0
