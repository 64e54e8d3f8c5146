"""A folder that is written completely or not at all, locally or at a URL, for `caploom export` and `checkpoint`."""

import errno
import glob
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from caploom.errors import ExportError
from caploom.storage.bucket import Bucket, at_once
from caploom.storage.paths import is_url
from caploom.storage.writing import draft_beside, fsync_path, is_abandoned

_DRAFT_MARK = ".caploom-export."


def absolute(out: Path | str) -> str:
    """The absolute path of a folder; a URL stays as it is."""
    if is_url(str(out)):
        return str(out).rstrip("/")
    return str(Path(out).expanduser().absolute())


@contextmanager
def atomic_output(out: str, last: str | None = None) -> Iterator[Path]:
    """A folder to write into, which is moved to `out` when the block succeeds, and removed when it fails.

    A local folder is moved in one rename. A URL has no rename: the files are uploaded, and the file `last` marks that
    all are there. Raises `ExportError` when there is something at `out` already, or when it cannot be written, and
    `StoreError` for a storage that fails.
    """
    with _uploaded(out, last) if is_url(out) else _renamed(Path(out)) as folder:
        yield folder


@contextmanager
def _uploaded(out: str, last: str | None) -> Iterator[Path]:
    bucket = Bucket(out)
    bucket.check()
    there = set(bucket.list(""))
    # Without its last file it is the rest of a killed export, which is overwritten.
    if there and (last is None or last in there):
        raise ExportError(f"{out}: there is something here already; name a prefix that is new or empty.")
    with tempfile.TemporaryDirectory(prefix="caploom-export-") as scratch:
        folder = Path(scratch)
        try:
            yield folder
        except OSError as error:
            raise _unwritable(tempfile.gettempdir(), error, "name a larger one in TMPDIR") from None
        files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
        for name in there - files.keys():
            bucket.delete(name)
        at_once(bucket.upload, [(path, name) for name, path in files.items() if name != last])
        if last is not None:
            bucket.upload(files[last], last)


@contextmanager
def _renamed(out: Path) -> Iterator[Path]:
    """A hidden folder next to `out` that becomes `out` in one rename."""
    draft = draft_beside(out.with_name(f"{out.name}{_DRAFT_MARK}"))
    try:
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise ExportError(f"{out}: there is something here already; name a folder that is new or empty.")
        out.parent.mkdir(parents=True, exist_ok=True)
        _sweep(out)
        draft.mkdir()
        yield draft
        fsync_path(draft)
        if out.is_dir() and out.samefile(Path.cwd()):
            # A shell whose working directory it is would otherwise be left in a deleted folder.
            for path in draft.iterdir():
                path.rename(out / path.name)
        else:
            draft.rename(out)
        fsync_path(out.parent)
    except OSError as error:
        # Unreadable images and training sets have their own messages: only the output remains as the cause.
        raise _unwritable(str(out), error, "name another folder") from None
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _unwritable(out: str, error: OSError, advice: str) -> ExportError:
    hint = "make room" if error.errno in (errno.ENOSPC, errno.EDQUOT) else advice
    why = (error.strerror or str(error)).lower()
    return ExportError(f"{out}: the export cannot be written ({why}); {hint} and export again.")


def _sweep(out: Path) -> None:
    """Remove what killed exports to the same folder left behind."""
    for left_over in out.parent.glob(f".{glob.escape(out.name)}{_DRAFT_MARK}*.*"):
        if is_abandoned(left_over):
            shutil.rmtree(left_over, ignore_errors=True)
