"""Reads a folder of images with their captions next to them: a text file each, or a metadata file per folder."""

import posixpath
import re
from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from itertools import islice
from typing import Any, ClassVar, Literal

from pydantic import Field, field_validator

from caploom.errors import SourceError
from caploom.readers.caption_rows import bad_row, caption_row, kind_of, suffix_of, uncaptioned_row
from caploom.readers.caption_tables import TableForm, caption_keys, table_records
from caploom.readers.image_names import IMAGE_SUFFIXES, refused_by_name
from caploom.readers.sidecars import Sidecar, read_sidecar
from caploom.readers.source_reader import SourceReader
from caploom.readers.source_row import SourceRow
from caploom.storage.paths import PathResolver, UriOrPath, exists, folder_of, is_folder, is_url, list_files, name_of

METADATA_NAMES = ("metadata.jsonl", "metadata.csv", "metadata.parquet")
"""The Hugging Face hub's names for the captions of a folder of images, anywhere below the root."""

BOOKKEEPING = re.compile(r"_[^.]*|\d+_stats\.json|\d+\.parquet|caploom\.(yaml|schema\.json)")
"""What programs leave beside images: markers such as `_SUCCESS`, img2dataset's tables, the YAML of `caploom init`."""

_TEXT = ".txt"
_CAPTION_KEYS = ("text", "caption")
_AT_ONCE = 16  # texts that are fetched from a storage service at once
_AHEAD = 256


@dataclass
class _Group:
    """The files of one folder whose names differ only in their endings."""

    images: list[str] = field(default_factory=list)
    text: str | None = None
    others: list[str] = field(default_factory=list)


class ImageFolderReader(SourceReader):
    """Images anywhere below `root`; captions in `.txt` files of the same names, or in `metadata.jsonl` and its like.

    Example:
        >>> [row.caption for row in ImageFolderReader(root="images").rows()]  # from images/cat.txt
        ['A cat.']
    """

    locations: ClassVar[frozenset[str]] = frozenset({"root"})
    reader: Literal["image_folder"] = "image_folder"
    root: UriOrPath = Field(description="Folder, or URL such as `s3://bucket/images`.")
    translations: list[str] = Field(
        default=[],
        description="Keys of lines `key=value` that are captions too, such as `[de, fr]`; others are ignored.",
    )
    caption_key: str | None = Field(
        default=None, description="Column of captions in metadata files, or `none`; by default `text` or `caption`."
    )

    @field_validator("translations")
    @classmethod
    def _keys_in_lower_case(cls, value: list[str]) -> list[str]:
        return [key.lower() for key in value]

    def prepare(self) -> None:
        """Check that the folder exists; raises `SourceError`."""
        if not is_folder(self.root):
            raise SourceError(f"{self.root}: there is no such folder; correct `root`.")

    def rows(self) -> Iterator[SourceRow]:
        """The captions of metadata files in their order, then those of single images in the order of their paths.

        An image without a caption is a bad row, and so are a text without an image and a file of unknown kind.
        Streams: eight bytes per line of metadata are kept in memory. Raises `SourceError` when a metadata file or the
        folder cannot be read.
        """
        self.prepare()
        yield from self._rows(lambda: (file.uri for file in list_files(self.root)), look_beside=False)

    def rows_of(self, files: Sequence[str]) -> Iterator[SourceRow]:
        """The rows of these files alone, as in `rows`; an image's text is read even if it is not among them.

        Every line of a metadata file is a row, whether its image is among the files or not.
        """
        yield from self._rows(lambda: sorted(files), look_beside=True)

    def _rows(self, listing: Callable[[], Iterable[str]], *, look_beside: bool) -> Iterator[SourceRow]:
        number = 0
        named = _Names()
        for table in listing():
            if name_of(table) in METADATA_NAMES:
                for row in self._of_table(table, named):
                    number += 1
                    yield replace(row, row=number)
        groups = _grouped(listing(), look_beside=look_beside)
        for group, text in self._with_texts(groups):
            for row in self._of_group(group, text, named):
                number += 1
                yield replace(row, row=number)

    def _of_table(self, table: str, named: "_Names") -> Iterator[SourceRow]:
        form = TableForm(image_key="file_name", caption_keys=caption_keys(self.caption_key, _CAPTION_KEYS))
        below = PathResolver(self.root)
        folder = self._relative(folder_of(table)) if folder_of(table) != self.root else ""
        for number, record in enumerate(table_records(table, form), start=1):
            where = f"{self._relative(table)}, row {number}"
            if isinstance(record, SourceRow):
                yield record
            elif not isinstance(record, dict):
                detail = f"{where}: it is {kind_of(record)} but must be an object."
                yield bad_row(number, "", "row_not_an_object", detail)
            elif not isinstance(name := record.get("file_name"), str) or not name.strip():
                detail = f'{where}: "file_name" must be the path of an image but is {kind_of(name)}.'
                yield bad_row(number, "", "no_image_path", detail)
            else:
                image = posixpath.normpath(posixpath.join(folder, name))
                named.add(image)
                key, captions = form.captions_of(record)
                yield from self._of_image(below.resolve(image), image, captions, where=where, key=key)

    def _of_image(
        self, path: str | None, image: str, captions: Sequence[Any], *, where: str, key: str
    ) -> Iterator[SourceRow]:
        """The rows of an image that a metadata file names, by its path below the root; `path` is its own path."""
        if refused := refused_by_name(image):
            yield bad_row(0, image, refused[0], f"{where}: {image!r}: {refused[1]}")
        elif path is None:
            detail = f"{where}: the path {image!r} leaves the image root {self.root}; images must lie inside it."
            yield bad_row(0, image, "path_leaves_root", detail)
        elif not captions:
            yield uncaptioned_row(0, image, path, f'{where}: "{key}" is empty, so the image has no caption.')
        else:
            for caption in captions:
                yield caption_row(0, image, path, caption, where=where, key=key)

    def _of_group(self, group: _Group, text: Sidecar | None, named: "_Names") -> Iterator[SourceRow]:
        if group.text is not None and not group.images:
            image = self._relative(group.text)
            yield bad_row(
                0, image, "no_image", f"{image!r}: there is no image of this name; add it or remove the text."
            )
        for uri in [] if group.images else group.others:
            image = self._relative(uri)
            yield bad_row(
                0, image, "not_an_image", f"{image!r}: by its name it is not an image; remove it from the folder."
            )
        for uri in group.images:
            image = self._relative(uri)
            if refused := refused_by_name(uri):
                yield bad_row(0, image, refused[0], f"{image!r}: {refused[1]}")
            elif text is not None and text.fault is not None:
                yield bad_row(0, image, *text.fault)
            elif text is not None and text.captions:
                for caption in text.captions:
                    yield caption_row(0, image, uri, caption, where=repr(image), key=_TEXT)
            elif image not in named:
                why = "its text is empty" if text is not None else "there is no text next to it and no line of metadata"
                yield uncaptioned_row(0, image, uri, f"{image!r}: {why}; caption it or remove it.")

    def _with_texts(self, groups: Iterator[_Group]) -> Iterator[tuple[_Group, Sidecar | None]]:
        if not is_url(self.root):
            for group in groups:
                yield group, self._text_of(group)
            return
        with ThreadPoolExecutor(_AT_ONCE) as threads:  # each text is a separate request
            while ahead := list(islice(groups, _AHEAD)):
                yield from zip(ahead, threads.map(self._text_of, ahead), strict=True)

    def _text_of(self, group: _Group) -> Sidecar | None:
        return read_sidecar(group.text, self.translations) if group.text is not None and group.images else None

    def _relative(self, uri: str) -> str:
        """A file's name in rows: its path below the root."""
        return uri.removeprefix(self.root.rstrip("/") + "/")


def _grouped(uris: Iterable[str], *, look_beside: bool) -> Iterator[_Group]:
    """The files by their names without ending; with `look_beside`, an image's text need not be among `uris`.

    `uris` are sorted, so files that begin with `a/b.` are adjacent, and only those are kept in memory.
    """
    waiting: dict[str, _Group] = {}

    def complete(stem: str) -> _Group:
        group = waiting.pop(stem)
        if group.images and group.text is None and look_beside and exists(stem + _TEXT):
            group.text = stem + _TEXT
        return group

    for uri in uris:
        for stem in [stem for stem in waiting if not uri.startswith(f"{stem}.")]:
            yield complete(stem)
        name, suffix = name_of(uri), suffix_of(uri)
        if name in METADATA_NAMES or BOOKKEEPING.fullmatch(name):
            continue
        group = waiting.setdefault(uri.rpartition(".")[0] if suffix else uri, _Group())
        if suffix in IMAGE_SUFFIXES:
            group.images.append(uri)
        elif suffix == _TEXT:
            group.text = uri
        else:
            group.others.append(uri)
    for stem in list(waiting):
        yield complete(stem)


class _Names:
    """A set of names that takes eight bytes per name; names are first all added, and then looked up."""

    def __init__(self) -> None:
        self._hashes = array("Q")
        self._sorted = True

    def add(self, name: str) -> None:
        self._hashes.append(_hash(name))
        self._sorted = False

    def __contains__(self, name: str) -> bool:
        if not self._sorted:
            import numpy as np

            np.frombuffer(self._hashes, np.uint64).sort()  # in place
            self._sorted = True
        wanted = _hash(name)
        position = bisect_left(self._hashes, wanted)
        return position < len(self._hashes) and self._hashes[position] == wanted


def _hash(name: str) -> int:
    return int.from_bytes(blake2b(name.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")
