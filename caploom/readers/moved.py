"""Whether recorded settings of a reader are those of a present one that reads the same files in another place."""

from collections.abc import Iterable, Mapping
from typing import Any

from caploom.errors import ImageFault
from caploom.images.location import read_location
from caploom.images.moves import Folders
from caploom.readers.picture_book import PictureBookReader
from caploom.readers.source_reader import SourceReader
from caploom.storage.paths import exists, folder_of, name_of
from caploom.storage.records import image_identity

_FOLDERS = ("root", "tars", "files")
"""Keys of readers' settings that say below what the images lie."""

_WILDCARDS = "*?[{"
_FILES = (".tar", ".parquet")


def differs_in_place_only(
    reader: SourceReader, recorded: Mapping[str, Any], *, besides: frozenset[str] = frozenset()
) -> bool:
    """Whether a reader's recorded settings differ from the present ones, and in nothing but where the files lie.

    `besides` are keys that may differ too.
    """
    present, ignored = reader.fingerprinted(), reader.locations | besides
    return present != recorded and _without(present, ignored) == _without(recorded, ignored)


def is_still_there(reader: SourceReader, recorded: Mapping[str, Any]) -> bool:
    """Whether any file or folder that the present settings name elsewhere is still where the recorded ones have it."""
    present = reader.fingerprinted()
    others = (recorded.get(key) for key in reader.locations if recorded.get(key) != present.get(key))
    return any(exists(_folder(other)) for other in others if isinstance(other, str))


def moved_folders(reader: SourceReader, recorded: Mapping[str, Any]) -> Folders:
    """The folders that a reader's images lie below: (as recorded in its settings, at present)."""
    before, now = _image_folders(recorded), _image_folders(reader.fingerprinted())
    return tuple((before[key], now[key]) for key in before.keys() & now.keys())


def are_these_images(images: Iterable[tuple[str, str]]) -> bool:
    """Whether images, as (identity, location), have the bytes of then; those that cannot be read count neither way.

    Other images may have the same names and captions: smaller ones, or another film's frames.
    """
    alike = 0
    for identity, location in images:
        try:
            if image_identity(read_location(location)) != identity:
                return False
            alike += 1
        except ImageFault:
            continue
    return alike > 0


def moved_pictures(reader: SourceReader, image: str, location: str) -> Folders:
    """The same of a reader that doesn't record its folder, from one of its images and where that is recorded to lie."""
    if isinstance(reader, PictureBookReader) and location.endswith(f"/{image}"):
        return ((location.removesuffix(f"/{image}"), str(reader.folder / "images")),)
    return ()


def _without(settings: Mapping[str, Any], keys: frozenset[str]) -> dict[str, Any]:
    return {key: value for key, value in settings.items() if key not in keys}


def _image_folders(settings: Mapping[str, Any]) -> dict[str, str]:
    return {key: _folder(settings[key]) for key in _FOLDERS if settings.get(key) is not None}


def _folder(pattern: str) -> str:
    """The folder that all files of a name, a folder or a pattern lie below; by its text, as it may be gone."""
    wild = min((place for sign in _WILDCARDS if (place := pattern.find(sign)) >= 0), default=None)
    if wild is not None:
        return folder_of(pattern[:wild])
    return folder_of(pattern) if name_of(pattern).lower().endswith(_FILES) else pattern
