"""Fingerprints: short hashes of configuration and content, the same on every machine."""

import hashlib
import json
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any

_WHOLE_FILE_LIMIT = 64 * 2**20  # bytes
_ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=True, check_circular=False)


def fingerprint(value: Any) -> str:
    """16 hexadecimal digits of the SHA-256 of a JSON value, independent of the order of its keys."""
    return hashlib.sha256(_ENCODER.encode(value).encode("ascii")).hexdigest()[:16]


def content_version(rows: Iterable[str]) -> str:
    """A data version: 16 hexadecimal digits of the SHA-256 of rows of text, in the order given."""
    digest = hashlib.sha256()
    for row in rows:
        data = row.encode("utf-8", "surrogatepass")
        digest.update(len(data).to_bytes(8, "little"))
        digest.update(data)
    return digest.hexdigest()[:16]


def file_sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def model_folder_fingerprint(folder: Path) -> str:
    """A hash of a model folder's content: results depend on the weights, not on where they are stored.

    Files up to 64 MiB are hashed whole; of larger ones the size and the first and last MiB (a 14 GB checkpoint must not
    be read completely every time the definitions load).
    """
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        if not path.is_file() or any(part.startswith(".") for part in name.parts):
            continue
        size = path.stat().st_size
        digest.update(f"{name.as_posix()}\0{size}\0".encode())
        with path.open("rb") as file:
            if size <= _WHOLE_FILE_LIMIT:
                digest.update(file.read())
            else:
                digest.update(file.read(2**20))
                file.seek(-(2**20), 2)
                digest.update(file.read())
    return digest.hexdigest()[:16]


def model_content(path: Path) -> str:
    """`content:` and the hash of a model's file or folder, wherever it is. An unchanged one is read once."""
    if path.is_dir():
        files = tuple((str(file), *_stamp(file)) for file in sorted(path.rglob("*")) if file.is_file())
        return f"content:{_folder_content(path, files)}"
    return f"content:{_file_content(path, _stamp(path))}"


def _stamp(file: Path) -> tuple[int, int]:
    stat = file.stat()
    return stat.st_size, stat.st_mtime_ns


# The second argument is only the cache's key.
@lru_cache(maxsize=64)
def _folder_content(folder: Path, files: tuple[tuple[str, int, int], ...]) -> str:
    return model_folder_fingerprint(folder)


@lru_cache(maxsize=64)
def _file_content(file: Path, stamp: tuple[int, int]) -> str:
    return file_sha256(file)
