"""Shared by the readers of caption files: turns an image's record into checked rows."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any, BinaryIO

from caploom.common.text import first_line
from caploom.errors import SourceError
from caploom.readers.image_names import as_text, is_text, refused_by_name
from caploom.readers.source_row import SourceRow
from caploom.storage.paths import PathResolver, exists, is_folder, name_of, open_uri


@dataclass(frozen=True)
class CaptionRows:
    """Makes the rows of a file's records.

    Attributes:
        file: the file's name, for sentences.
        root: path or URL of the folder that images lie below.
        rewritten: maps a path of the file to the image's local path; None leaves paths unchanged.
    """

    file: str
    root: str
    rewritten: Callable[[str], str] | None = None

    @cached_property
    def _below(self) -> PathResolver:
        return PathResolver(self.root)

    def of_image(
        self, number: int, image: Any, captions: Sequence[Any], *, image_key: str, caption_key: str
    ) -> Iterator[SourceRow]:
        """A row for each caption of the record `number`; one bad row when its image or all captions are unusable."""
        where = f"{self.file}, row {number}"
        if not isinstance(image, str) or not image.strip():
            detail = f'{where}: "{image_key}" must be the path of an image but is {kind_of(image)}.'
            yield bad_row(number, "", "no_image_path", detail)
            return
        uri = self.rewritten(image) if self.rewritten else image
        if refused := refused_by_name(uri):
            yield bad_row(number, image, refused[0], f"{where}: {uri!r}: {refused[1]}")
            return
        path = self._below.resolve(uri)
        if path is None:
            became = f", rewritten to {uri!r}," if uri != image else ""
            detail = (
                f"{where}: the path {image!r}{became} leaves the image root {self.root}; images must lie inside it."
            )
            yield bad_row(number, image, "path_leaves_root", detail)
            return
        if not captions:
            detail = f'{where}: "{caption_key}" is empty, so the image has no caption; caption it or leave it out.'
            yield uncaptioned_row(number, image, path, detail)
        for caption in captions:
            yield caption_row(number, image, path, caption, where=where, key=caption_key)


def caption_row(number: int, image: str, path: str, caption: Any, *, where: str, key: str) -> SourceRow:
    """The row of an image that may be opened and one caption, which may be missing, empty or of any type."""
    if not isinstance(caption, str):
        detail = f'{where}: "{key}" must be text but is {kind_of(caption)}.'
        if caption is None:
            return uncaptioned_row(number, image, path, detail, "caption_not_text")
        return bad_row(number, image, "caption_not_text", detail)
    # A lone surrogate, which JSON can express, has no UTF-8 form, so no table can hold it.
    text = caption if caption.isascii() else as_text(caption)
    if not text.strip():
        return uncaptioned_row(number, image, path, f"{where}: the caption is empty.", "empty_caption")
    return SourceRow(row=number, image=image if is_text(image) else as_text(image), caption=text, path=path)


def uncaptioned_row(number: int, image: str, path: str, detail: str, reason: str = "no_caption") -> SourceRow:
    """The row of an image that may be opened and has no caption: bad only where a caption is needed."""
    return SourceRow(number, as_text(image), None, path, reason, as_text(detail))


def bad_row(number: int, image: str, reason: str, detail: str) -> SourceRow:
    """A row that cannot be used: `reason` is a short word to count by, `detail` one sentence."""
    return SourceRow(row=number, image=as_text(image), caption=None, path=None, reason=reason, detail=as_text(detail))


def not_an_object(file: str, number: int, record: Any) -> SourceRow:
    """The row of a record that is not an object."""
    detail = f"{file}, row {number}: it is {kind_of(record)} but must be an object."
    return bad_row(number, "", "row_not_an_object", detail)


def kind_of(value: Any) -> str:
    """The type of a value, in words."""
    names = {dict: "an object", list: "a list", str: "empty text", bool: "true or false", type(None): "missing"}
    return names.get(type(value), "a number")


def check_files(root: str, captions: str, suffixes: Sequence[str]) -> None:
    """Check that folder and file exist and that the file has a supported suffix; raises `SourceError`."""
    if not is_folder(root):
        raise SourceError(f"{root}: the image root is not a folder; correct `root`.")
    if not exists(captions) or is_folder(captions):
        raise SourceError(f"{captions}: there is no such file; correct `captions`.")
    if suffix_of(captions) not in suffixes:
        raise SourceError(
            f"{captions}: captions are read from {', '.join(suffixes)} files; convert it or change `captions`."
        )


def suffix_of(uri: str) -> str:
    """The ending of a file's name in lower case, with its dot; empty without one."""
    stem, dot, ending = name_of(uri).rpartition(".")
    return f".{ending.lower()}" if dot and stem else ""


@contextmanager
def reading(uri: str) -> Iterator[BinaryIO]:
    """Open a file for reading; a read that fails raises `SourceError`, as opening does."""
    with open_uri(uri) as file:
        try:
            yield file
        except OSError as error:
            why = error.strerror or str(error)
            raise SourceError(f"{uri}: it cannot be read to its end ({why}); check that it is complete.") from None


def json_items(uri: str, prefix: str) -> Iterator[Any]:
    """The items of an array in a JSON file (`prefix` as ijson has it), streamed, for files of any size.

    Where the JSON is damaged, the last item is a bad `SourceRow` that says so.
    """
    import ijson  # streams: a JSON of gigabytes is never held whole

    count = 0
    try:
        with reading(uri) as file:
            for record in ijson.items(file, prefix, use_float=True):
                count += 1
                yield record
    except (ijson.JSONError, UnicodeDecodeError) as error:
        # The rows before the damage are good; the rest cannot be counted, so one bad row stands for it.
        incomplete = any(word in str(error).lower() for word in ("premature", "incomplete"))  # by ijson's backend
        what = "ends in the middle" if incomplete else "is not valid JSON"
        detail = f"{name_of(uri)}: the JSON {what} after row {count} ({first_line(error)}); repair it."
        yield bad_row(count + 1, "", "json_ends_early" if incomplete else "invalid_json", detail)
