"""Whether a source has changed since its rows were last cut into shards, told by its files' sizes and times alone."""

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


@dataclass(frozen=True)
class SourceState:
    """How a source stands: `version` is another one after any of its files was written; `size` is theirs in bytes."""

    version: str
    size: int


def source_state(reader: "Reader") -> SourceState | None:
    """The state of a source that is one or several known files; None of a folder, which is known by listing it all.

    Raises `SourceError` when a file is not there.
    """
    files = _files(reader)
    if files is None:
        return None
    told = [[file.uri, file.size, file.modified] for file in files]
    # What another Caploom makes of the same file may be other rows.
    version = fingerprint([caploom.__version__, reader.fingerprinted(), told])
    return SourceState(version, sum(file.size for file in files))


def was_read(store: Store, address: str, state: SourceState | None, shards: int) -> bool:
    """Whether the rows of a source in this state have all been cut, and the shards at the address are those of then."""
    if state is None:
        return False
    store.pull_shared(f"{address}/{_RECORD}")
    try:
        recorded = json.loads((store.path(address) / _RECORD).read_bytes())
    except (FileNotFoundError, ValueError):
        return False
    return bool(recorded == _record(state, shards))


def remember_as_read(store: Store, address: str, state: SourceState | None, shards: int) -> None:
    """Write down that the rows of a source in this state have all been cut into so many shards."""
    folder = store.path(address)
    if state is not None and folder.is_dir():
        store.put_shared(folder / _RECORD, json.dumps(_record(state, shards)).encode())


def _record(state: SourceState, shards: int) -> dict[str, str | int]:
    return {"version": state.version, "shards": shards}


def _files(reader: "Reader") -> Sequence[ListedFile] | None:
    if isinstance(reader, ImageCaptionsReader | KarpathyReader | CocoReader):
        return [file_at(reader.captions)]
    # Tars and Parquet bring libraries that other readers do without.
    from caploom.readers.parquet_images import ParquetReader
    from caploom.readers.webdataset import WebdatasetReader

    if isinstance(reader, ParquetReader | WebdatasetReader):
        return [file_at(uri) for uri in reader.uris()]
    return None
