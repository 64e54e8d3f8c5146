"""Atomic writing: drafts next to their target, and a readable error for a full disk."""

import errno
import os
import platform
import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from caploom.errors import StoreError

_HERE = re.sub(r"[^A-Za-z0-9-]", "-", platform.node())
_OWNER = re.compile(r"\.(?:@(?P<host>[^.]*)\.)?(?P<pid>\d+)\.[0-9a-f]+(?:\.wal)?$")

_DISK_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@contextmanager
def full_disk_explained(
    root: Path,
    what: str = "the store cannot be written",
    advice: str = "make room and run again: finished artifacts are kept",
) -> Iterator[None]:
    """A full disk or an exhausted quota becomes a `StoreError` that says so."""
    try:
        yield
    except OSError as error:
        if error.errno not in _DISK_FULL:
            raise
        raise StoreError(f"{root}: {what} ({os.strerror(error.errno).lower()}); {advice}.") from None


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file completely or not at all: temporary name, fsync, rename."""
    temporary = draft_beside(path)
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    fsync_path(path.parent)


def draft_beside(target: Path) -> Path:
    """The hidden name under which a file or folder is written: it names the writing machine and process."""
    return target.with_name(f".{target.name}.@{_HERE}.{os.getpid()}.{uuid.uuid4().hex[:8]}")


def is_abandoned(draft: Path) -> bool:
    """Whether the process that was writing a draft is gone; always False for another machine's process."""
    owner = _OWNER.search(draft.name)
    if owner is None or owner["host"] not in (None, _HERE):
        return False
    try:
        os.kill(int(owner["pid"]), 0)
    except (ProcessLookupError, OverflowError):
        return True
    except PermissionError:
        return False
    return False


def fsync_path(path: Path) -> None:
    """Flush what was written to a file or folder to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
