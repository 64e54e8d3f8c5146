"""Reads webdataset tars, from img2dataset and others: an image and its caption are members with the same key.

Nothing is unpacked: a row's image is a range of bytes of its tar.
"""

import json
import re
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, BinaryIO, ClassVar, Literal

from pydantic import Field

from caploom.errors import SourceError
from caploom.images.location import Location
from caploom.readers.caption_rows import bad_row, caption_row, uncaptioned_row
from caploom.readers.expand_paths import files_named
from caploom.readers.image_names import IMAGE_SUFFIXES, as_text, refused_by_name
from caploom.readers.source_reader import FilesReader
from caploom.readers.source_row import SourceRow
from caploom.storage.paths import UriOrPath, name_of, open_uri

_TARS = (".tar", ".tgz", ".gz", ".bz2", ".xz", ".zst")
_MAX_TEXT = 4 * 2**20  # bytes of a member that is read for a caption
_FORGET_AFTER = 1_000  # members, all of which tarfile would remember
_BLOCK = 512  # bytes; a tar ends with an empty block
# webdataset's rule: the key ends at the first dot of the last part of the name.
_KEY = re.compile(r"((?:.*/|)[^./][^./]*)\.([^/]+)\Z", re.DOTALL)


class WebdatasetReader(FilesReader):
    """Tars of samples: members of the same name up to its first dot.

    Example:
        >>> [row.caption for row in WebdatasetReader(tars="cats.tar").rows()]
        ['A cat.']
    """

    locations: ClassVar[frozenset[str]] = frozenset({"tars"})
    reader: Literal["webdataset"] = "webdataset"
    tars: UriOrPath = Field(description="A tar, a folder of tars, or a pattern such as `data/{00000..00041}.tar`.")
    caption_from: list[str] = Field(
        default=["txt", "caption", "text", "json:caption", "json:text"],
        min_length=1,
        description="Where captions are: a member's ending, or `json:<key>`; the first that a sample has counts.",
    )

    def uris(self) -> list[str]:
        """The paths or URLs of the tars."""
        return files_named(self.tars, _TARS)

    def rows_of(self, files: Sequence[str]) -> Iterator[SourceRow]:
        """The rows of these tars. Raises `SourceError` when one cannot be opened."""
        number = 0
        for uri in files:
            for sample in _samples(uri):
                number += 1
                yield from self._of_sample(uri, number, sample)

    def _of_sample(self, uri: str, number: int, sample: "_Sample | SourceRow") -> Iterator[SourceRow]:
        if isinstance(sample, SourceRow):
            yield bad_row(number, sample.image, sample.reason or "", sample.detail or "")
            return
        where = f"{name_of(uri)}, {sample.key!r}"
        for fault in sample.faults:
            yield bad_row(number, f"{name_of(uri)}/{sample.key}", *fault)
        if not sample.images:
            if not sample.faults:
                yield bad_row(number, f"{name_of(uri)}/{sample.key}", "no_image", f"{where}: it has no image.")
            return
        key, captions = self._caption(sample)
        for name, location in sample.images:
            image = f"{name_of(uri)}/{as_text(name)}"
            if refused := refused_by_name(name):
                yield bad_row(number, image, refused[0], f"{where}: {refused[1]}")
            elif not captions:
                looked = ", ".join(self.caption_from)
                detail = f"{where}: it has no caption in {looked}; see `caption_from`."
                yield uncaptioned_row(number, image, location, detail)
            else:
                for caption in captions:
                    yield caption_row(number, image, location, caption, where=where, key=key)

    def _caption(self, sample: "_Sample") -> tuple[str, list[Any]]:
        """The key of the caption and its value; nothing when there is none."""
        for source in self.caption_from:
            kind, _, key = source.partition(":")
            if kind != "json":
                if source in sample.texts:
                    return source, [sample.texts[source]]
                continue
            for ending, text in sample.texts.items():
                if ending.endswith("json"):
                    try:
                        record = json.loads(text)
                    except (ValueError, RecursionError):
                        continue
                    if isinstance(record, dict) and record.get(key) is not None:
                        value = record[key]
                        return source, value if isinstance(value, list) else [value]
        return self.caption_from[0], []


@dataclass
class _Sample:
    """Members of one key: images as (name, location), texts by their ending, and faults as (reason, detail)."""

    key: str
    images: list[tuple[str, str]] = field(default_factory=list)
    texts: dict[str, str] = field(default_factory=dict)
    faults: list[tuple[str, str]] = field(default_factory=list)


def _samples(uri: str) -> Iterator[_Sample | SourceRow]:
    """The samples of a tar in its order, one in memory; a bad row for a fault outside any sample."""
    if name_of(uri).lower().endswith(_TARS[1:]):
        detail = f"{name_of(uri)}: a compressed tar cannot be read in pieces; decompress it to .tar."
        yield bad_row(0, name_of(uri), "compressed_tar", detail)
        return
    with open_uri(uri) as file:
        size = file.seek(0, 2)
        file.seek(0)
        try:
            with tarfile.open(fileobj=file, mode="r:") as tar:
                yield from _samples_of(uri, tar, file, size)
        except tarfile.ReadError as error:
            if size:
                detail = f"{name_of(uri)}: it is not a tar ({error}); repair it or remove it."
            else:
                detail = f"{name_of(uri)}: the file has no bytes; copy it again."
            yield bad_row(0, name_of(uri), "not_a_tar", detail)
        except OSError as error:
            raise SourceError(f"{uri}: it cannot be read to its end ({error}); check that it is complete.") from None


def _samples_of(uri: str, tar: tarfile.TarFile, file: BinaryIO, size: int) -> Iterator[_Sample | SourceRow]:
    sample: _Sample | None = None
    count = 0
    try:
        while (member := tar.next()) is not None:
            count += 1
            if count % _FORGET_AFTER == 0:
                tar.members = []  # type: ignore[attr-defined]
            if member.isdir():
                continue
            if (fault := _fault(uri, member, size)) is not None:
                if fault.reason == "tar_ends_early":
                    break
                yield fault
                continue
            found = _KEY.match(member.name)
            if found is None:
                continue  # hidden files, and names without an ending: not samples by webdataset's rule
            if sample is None or sample.key != found[1]:
                if sample is not None:
                    yield sample
                sample = _Sample(found[1])
            _add(uri, file, member, found[2].lower(), sample)
        else:
            if sample is not None:
                yield sample
                sample = None
            if _has_end(file, tar.offset):
                return
    except (tarfile.ReadError, EOFError):  # a header that is cut off or missing
        pass
    if sample is not None:
        yield sample
    detail = f"{name_of(uri)}: it ends or is damaged after {count:,} members, without a tar's end; copy it again."
    yield bad_row(0, name_of(uri), "tar_ends_early", detail)


def _fault(uri: str, member: tarfile.TarInfo, size: int) -> SourceRow | None:
    """Why a member must not be read, or cannot be."""
    name = f"{name_of(uri)}/{member.name}"
    parts = member.name.split("/")
    if member.name.startswith("/") or ".." in parts or "\0" in member.name:
        detail = f"{name_of(uri)}: the member {member.name!r} leaves the archive's folder; it is not read."
        return bad_row(0, name, "unsafe_member", detail)
    if not member.isreg() or member.issparse():
        what = "a link" if member.issym() or member.islnk() else "not a plain file"
        detail = f"{name_of(uri)}: the member {member.name!r} is {what}; it is not read."
        return bad_row(0, name, "unsafe_member", detail)
    if member.offset_data + member.size > size:
        return bad_row(0, name, "tar_ends_early", "")
    return None


def _add(uri: str, file: BinaryIO, member: tarfile.TarInfo, ending: str, sample: _Sample) -> None:
    last = f".{ending.rpartition('.')[2]}"
    if last in IMAGE_SUFFIXES:
        location = str(Location(uri, offset=member.offset_data, length=member.size))
        sample.images.append((member.name, location))
        return
    if last not in (".json", ".txt", ".caption", ".text") and member.size > 65_536:
        return  # of another kind: masks, audio, embeddings
    where = f"{name_of(uri)}, {member.name!r}"
    if member.size > _MAX_TEXT:
        sample.faults.append(("caption_too_long", f"{where}: {member.size:,} bytes are too long for a caption."))
        return
    file.seek(member.offset_data)
    try:
        sample.texts[ending] = file.read(member.size).decode("utf-8-sig").strip()
    except UnicodeDecodeError:
        if last in (".json", ".txt", ".caption", ".text"):
            sample.faults.append(("undecodable_text", f"{where}: it is not UTF-8; convert it."))


def _has_end(file: BinaryIO, offset: int) -> bool:
    """Whether reading stopped at the empty block; without it the tar was cut off between two members."""
    file.seek(max(0, offset - _BLOCK))
    return bool(re.fullmatch(rb"\0+", file.read(2 * _BLOCK)[-_BLOCK:]))
