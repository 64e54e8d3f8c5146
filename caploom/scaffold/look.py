"""Looks at a folder, a table or a URL: what it holds, and which reader reads it."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from caploom.common.text import counted
from caploom.errors import SourceError
from caploom.readers.caption_rows import suffix_of
from caploom.readers.caption_tables import TABLE_SUFFIXES
from caploom.readers.image_folder import ImageFolderReader
from caploom.readers.image_names import IMAGE_SUFFIXES, as_text, is_text
from caploom.readers.registry import Reader
from caploom.readers.source_reader import FilesReader
from caploom.scaffold.found import Found, Recognized
from caploom.scaffold.listing import Listing, is_compressed_tar
from caploom.scaffold.parquet_tables import look_at_parquet
from caploom.scaffold.recognize import forms_of_folder, of_table
from caploom.scaffold.sample import Sample, sample_rows
from caploom.storage.paths import exists, folder_of, is_folder, is_url, name_of

MOST_SAMPLED_FILES = 20_000
"""Files of a folder of images whose texts are read."""
MOST_FAR_FILES = 300
"""The same for a URL, where each takes a request or two."""


def look(place: str, images: str | None = None) -> Found:
    """What a folder, a table or a tar holds, here or at a URL; `images` is the folder of a table's images.

    Raises `SourceError` with one sentence about what was seen, when nothing there can be read.

    Example:
        >>> look("images").what
        'a folder of images with texts'
    """
    if not is_text(place):
        raise SourceError(f"{as_text(place)}: its name is not UTF-8, as a YAML is; rename it.")
    place, images = _whole(place), None if images is None else _whole(images)
    if not exists(place):
        raise SourceError(f"{place}: there is no such file or folder; correct its path.")
    if images is not None and not is_folder(images):
        raise SourceError(f"{images}: there is no such folder; correct --images.")
    if not is_folder(place):
        recognized = _of_file(place, images)
        return _found(place, recognized, _sample(recognized, None))
    listing = Listing.of(place)
    if not listing.files:
        raise SourceError(f"{place}: the folder is empty; name one with images, a table of captions, or tars.")
    refused: list[str] = []
    for form in forms_of_folder(listing, images):
        try:
            recognized_form = form()
            if recognized_form is None:
                continue
            found = _found(place, recognized_form, _sample(recognized_form, listing))
        except SourceError as error:
            refused.append(str(error))
            continue
        return replace(found, remarks=(*found.remarks, *_beside(listing, recognized_form, refused)))
    raise SourceError(_nothing_to_read(listing, refused))


def _whole(place: str) -> str:
    place = place.removeprefix("file://")
    if is_url(place):
        return place.rstrip("/") if not place.endswith("://") else place
    return str(Path(place).expanduser().resolve())


def _of_file(uri: str, images: str | None) -> Recognized:
    suffix = suffix_of(uri)
    if is_compressed_tar(uri):
        raise SourceError(f"{uri}: a compressed tar cannot be read in pieces; decompress it to .tar.")
    if suffix == ".tar":
        return Recognized("webdataset's tar", {"reader": "webdataset", "tars": uri})
    if suffix == ".parquet" and (keys := look_at_parquet(uri)) is not None:
        return Recognized("a Parquet file that holds images", {"reader": "parquet", "files": uri, **keys})
    if suffix in TABLE_SUFFIXES:
        return of_table(uri, images, Listing.of(images or folder_of(uri)) if is_url(uri) else None)
    if suffix in IMAGE_SUFFIXES:
        raise SourceError(f"{uri}: it is one image; name its folder.")
    if suffix == ".zip":
        raise SourceError(f"{uri}: a .zip is not read; unpack it, and name the folder.")
    raise SourceError(
        f"{uri}: it is neither a tar nor a table ({', '.join(TABLE_SUFFIXES)}); name one, or a folder of images."
    )


def _sample(recognized: Recognized, listing: Listing | None) -> Sample:
    reader: Any = TypeAdapter(Reader).validate_python(dict(recognized.pairs))
    place = next(str(recognized.pairs[key]) for key in ("captions", "tars", "files", "root") if key in recognized.pairs)
    if isinstance(reader, ImageFolderReader) and listing is not None:
        files = listing.files[: MOST_FAR_FILES if is_url(place) else MOST_SAMPLED_FILES]
        sample = sample_rows(reader.rows_of(files), far=is_url(place))
        sample.complete = sample.complete and listing.complete and len(files) == len(listing.files)
    elif isinstance(reader, FilesReader) and is_url(place):
        uris = reader.uris()
        sample = sample_rows(reader.rows_of(uris[:1]), far=True)
        sample.complete = sample.complete and len(uris) == 1
    else:
        sample = sample_rows(reader.rows(), far=is_url(place))
    if not sample.images:
        why = next(iter(sample.examples.values()), f"{place}: it has no row.")
        raise SourceError(f"{place}: there is no image in it that can be used; the first row says: {why}")
    return sample


def _found(place: str, recognized: Recognized, sample: Sample) -> Found:
    for key, value in recognized.pairs.items():
        if isinstance(value, str) and not is_text(value):
            raise SourceError(f"{place}: the name {as_text(value)} ({key}) is not UTF-8, as a YAML is; rename it.")
    listed = recognized.images
    images, complete = listed if listed is not None else (sample.images, sample.complete)
    return Found(
        place,
        recognized.what.removesuffix(f" ({name_of(place)})"),
        recognized.pairs,
        images,
        not complete,
        sample,
        (*recognized.remarks, *_of_rows(sample)),
        recognized.splits,
    )


def _of_rows(sample: Sample) -> list[str]:
    """Sentences about rows that fail, or that have no caption."""
    remarks = []
    if sample.missing:
        becomes = "is not there, and becomes a failed row" if sample.missing == 1 else "are not there: failed rows"
        remarks.append(f"Of its first {counted(sample.looked_up, 'images')} {sample.missing:,} {becomes}.")
    if sample.captions and sample.uncaptioned:
        remarks.append(f"Without a caption: {counted(sample.uncaptioned, 'images')}, for which captioners alone write.")
    for reason, count in sample.faults.most_common(5):
        remarks.append(f"{counted(count, 'rows')} cannot be used ({reason}), such as: {sample.examples[reason]}")
    return remarks


def _beside(listing: Listing, chosen: Recognized, refused: list[str]) -> list[str]:
    """Sentences about tables that were not used."""
    if "captions" in chosen.pairs:
        others = [
            uri for uri in listing.tables if uri != chosen.pairs["captions"] and "caption" in name_of(uri).lower()
        ]
        return [f"{name_of(uri)} beside it is not read." for uri in others[:3]]
    return [f"Not used: {sentence}" for sentence in refused[:3]]


def _nothing_to_read(listing: Listing, refused: list[str]) -> str:
    if refused:
        return refused[0]
    number = counted(len(listing.files), "files")
    there = "there is" if len(listing.files) == 1 else "there are"
    least = "" if listing.complete else "at least "
    hint = "unpack the archives first" if listing.endings.keys() & {".zip", ".7z", ".rar"} else "name another folder"
    return (
        f"{listing.folder}: {there} {least}{number} ({listing.endings_text()}), and no image, table of images or tar "
        f"is among them; {hint}."
    )
