"""A prefix of object storage: whole objects put, fetched, listed and deleted, with retries and errors in one sentence.

No rename and no lock is assumed. Credentials come from the environment, as each storage's own fsspec package reads
them (`AWS_*`, `AWS_ENDPOINT_URL`, `GOOGLE_APPLICATION_CREDENTIALS`, ...).
"""

import errno
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_random_exponential

from caploom.errors import SourceError, StoreError
from caploom.storage.paths import file_system

_T = TypeVar("_T")
_PERMANENT = (FileNotFoundError, FileExistsError, PermissionError, IsADirectoryError, NotADirectoryError)
_LOCAL_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
# s3fs and gcsfs retry by themselves too; this is for other storages, and for what outlasts those.
_ATTEMPTS = 3
# It writes a traceback of every error that it then raises.
logging.getLogger("gcsfs").setLevel(logging.CRITICAL)


@dataclass(frozen=True, slots=True)
class StoredObject:
    """What a listing tells of an object: its size, and when it was written in nanoseconds (0 where nobody says)."""

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
        """Raise `StoreError` when the bucket is not there, or cannot be asked."""
        filesystem, path = self._at("")
        container = path.strip("/").split("/")[0]
        # A storage in memory has no buckets; those that have some do not make them by writing.
        if filesystem.protocol in ("memory", ("memory",)) or not container:
            return
        if not self._ask("", lambda: filesystem.exists(container)):
            raise StoreError(f"{self.url}: there is no bucket {container}; make it, or correct the address.")

    def read(self, key: str) -> bytes | None:
        """The bytes of an object; None when there is none."""
        filesystem, path = self._at(key)
        try:
            return bytes(self._ask(key, lambda: filesystem.cat_file(path)))
        except FileNotFoundError:
            return None

    def write(self, key: str, data: bytes) -> None:
        """Put an object whole, whatever was there."""
        filesystem, path = self._at(key)
        self._put(key, lambda: filesystem.pipe_file(path, data))

    def create(self, key: str, data: bytes) -> bool:
        """Put an object unless there is one; False when there was. A storage without conditions just puts it."""
        filesystem, path = self._at(key)
        try:
            self._put(key, lambda: filesystem.pipe_file(path, data, mode="create"))
        except FileExistsError:
            return self.read(key) == data  # a try of ours that was not answered did put it
        except (NotImplementedError, TypeError):
            self.write(key, data)
        return True

    def upload(self, file: Path, key: str) -> None:
        """Put a local file; large ones go up in parts."""
        filesystem, path = self._at(key)
        self._put(key, lambda: filesystem.put_file(str(file), path))

    def download(self, key: str, file: Path) -> None:
        """Fetch an object into a local file; raises `FileNotFoundError` when there is none."""
        filesystem, path = self._at(key)
        self._ask(key, lambda: filesystem.get_file(path, str(file)))

    def open(self, key: str, read_ahead: int) -> Any:
        """An object, opened for reading by ranges of at least so many bytes."""
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
        """Every object below a key, however many pages that takes."""
        filesystem, path = self._at(key)
        _, root = self._at("")
        filesystem.invalidate_cache()
        try:
            found: dict[str, dict[str, Any]] = self._ask(key, lambda: filesystem.find(path, detail=True))
        except FileNotFoundError:
            return {}
        start = len(root.strip("/")) + 1
        return {
            name.lstrip("/")[start:]: StoredObject(int(told.get("size") or 0), _written(told))
            for name, told in found.items()
            if told.get("type") != "directory"
        }

    def folders(self, key: str) -> Sequence[str]:
        """The names that the keys below a key go on with, up to the next slash."""
        filesystem, path = self._at(key)
        filesystem.invalidate_cache()
        try:
            found = self._ask(key, lambda: filesystem.ls(path, detail=True))
        except (FileNotFoundError, NotADirectoryError):
            return []
        return [told["name"].rstrip("/").rpartition("/")[2] for told in found if told["type"] == "directory"]

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
                f"{self.url_of(key)}: it cannot be written, its bucket is gone; correct the address."
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
        except Exception as error:  # noqa: BLE001 - a storage's own errors are of no common kind
            raise self._failed(key, error) from None

    def _failed(self, key: str, error: Exception) -> StoreError:
        if _is_denied(error):
            return StoreError(
                f"{self.url_of(key)}: the storage denies it ({_said(error)}); check that the credentials in the "
                "environment are there, have not expired and may read and write there."
            )
        if type(error).__name__ in ("NoCredentialsError", "PartialCredentialsError"):
            return StoreError(
                f"{self.url_of(key)}: the environment has no credentials for it ({_said(error)}); set them, for S3 in "
                "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY."
            )
        return StoreError(
            f"{self.url_of(key)}: the storage failed and went on failing ({_said(error)}); run again when it answers: "
            "what was finished before is kept."
        )


def _is_transient(error: BaseException) -> bool:
    if isinstance(error, _PERMANENT) or not isinstance(error, Exception) or _is_denied(error):
        return False
    if isinstance(error, OSError):
        return error.errno not in _LOCAL_DISK
    return "Timeout" in type(error).__name__ or "Connection" in type(error).__name__


def _is_denied(error: Exception) -> bool:
    # s3fs raises what is meant for it; gcsfs an OSError that begins so, an error with the status, or Google's own.
    google = type(error).__module__.startswith("google.auth")
    forbidden = str(error).startswith("Forbidden") or getattr(error, "code", None) in (401, 403)
    return isinstance(error, PermissionError) or google or forbidden


def _said(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


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
