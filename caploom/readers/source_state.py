"""Whether a source has changed since its rows were last split into shards, from its files' sizes and times alone."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import caploom
from caploom.common.hashing import fingerprint
from caploom.readers.coco import CocoReader
from caploom.readers.image_captions import ImageCaptionsReader
from caploom.readers.karpathy import KarpathyReader
from caploom.storage.paths import ListedFile, file_at
from caploom.storage.store import Store

if TYPE_CHECKING:
    from caploom.readers.registry import Reader

_RECORD = ".read.json"
_READING = 2
"""Raised when readers give other rows between two versions: 2 says where images without a caption lie."""


@dataclass(frozen=True)
class SourceState:
    """A source's state: `version` changes when any of its files is written; `size` is the files' size in bytes."""

    version: str
    size: int


def source_state(reader: "Reader") -> SourceState | None:
    """The state of a source that consists of known files; None for a folder, which would have to be listed.

    Raises `SourceError` when a file is missing.
    """
    files = _files(reader)
    if files is None:
        return None
    stats = [[file.uri, file.size, file.modified] for file in files]
    # Another version of Caploom may read other rows from the same file.
    version = fingerprint([caploom.__version__, _READING, reader.fingerprinted(), stats])
    return SourceState(version, sum(file.size for file in files))


def was_read(store: Store, address: str, state: SourceState | None, shards: int) -> bool:
    """Whether all rows of a source in this state are in shards, and no shard was added or removed since."""
    if state is None:
        return False
    store.pull_shared(f"{address}/{_RECORD}")
    try:
        recorded = json.loads((store.path(address) / _RECORD).read_bytes())
    except (FileNotFoundError, ValueError):
        return False
    return bool(recorded == _record(state, shards))


def remember_as_read(store: Store, address: str, state: SourceState | None, shards: int) -> None:
    """Record that all rows of a source in this state are in that many shards."""
    folder = store.path(address)
    if state is not None and folder.is_dir():
        store.put_shared(folder / _RECORD, json.dumps(_record(state, shards)).encode())


def _record(state: SourceState, shards: int) -> dict[str, str | int]:
    return {"version": state.version, "shards": shards}


def _files(reader: "Reader") -> Sequence[ListedFile] | None:
    if isinstance(reader, ImageCaptionsReader | KarpathyReader | CocoReader):
        return [file_at(reader.captions)]
    # Tars and Parquet need libraries that other readers do without.
    from caploom.readers.parquet_images import ParquetReader
    from caploom.readers.webdataset import WebdatasetReader

    if isinstance(reader, ParquetReader | WebdatasetReader):
        return [file_at(uri) for uri in reader.uris()]
    return None
