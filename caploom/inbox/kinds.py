"""Recognizes the kinds of the inbox's files by their names alone."""

from enum import StrEnum

from caploom.readers.image_names import IMAGE_SUFFIXES

_TABLES = frozenset("json jsonl csv tsv".split())
_TARS = ("tar", "tar.gz", "tgz", "tar.bz2", "tar.xz", "tar.zst")
_UNFINISHED = frozenset("part partial tmp temp crdownload download filepart".split())


class FileKind(StrEnum):
    """Kinds of files, as the journal stores them."""

    IMAGE = "image"
    CAPTION = "caption"  # the text next to an image
    TABLE = "table"  # captions of images next to it
    TAR = "tar"
    PARQUET = "parquet"
    MARKER = "marker"
    UNFINISHED = "unfinished"  # by its name, a program is still writing it
    UNKNOWN = "unknown"


def kind_of(name: str, marker: str) -> tuple[FileKind, str]:
    """A file's kind, and its stem, which files that belong together share."""
    if name == marker:
        return FileKind.MARKER, name
    lower = name.lower()
    for extension in _TARS:
        if lower.endswith(f".{extension}"):
            return FileKind.TAR, name[: -len(extension) - 1]
    stem, _, extension = name.rpartition(".")
    extension = extension.lower() if stem else ""
    if f".{extension}" in IMAGE_SUFFIXES:
        return FileKind.IMAGE, stem
    if extension == "txt":
        return FileKind.CAPTION, stem
    if extension in _TABLES:
        return FileKind.TABLE, stem.removesuffix("_stats")
    if extension == "parquet":
        return FileKind.PARQUET, stem
    if extension in _UNFINISHED:
        return FileKind.UNFINISHED, stem
    return FileKind.UNKNOWN, name
