"""Recognizes the forms in which folders hold images and captions, each with the reader's keys that read it."""

import re
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from caploom.common.text import counted
from caploom.errors import SourceError
from caploom.readers.caption_rows import suffix_of
from caploom.readers.image_folder import BOOKKEEPING, METADATA_NAMES
from caploom.scaffold.found import Recognized
from caploom.scaffold.image_roots import Placed, likely_roots, place_downloads, place_paths
from caploom.scaffold.listing import Listing, is_compressed_tar
from caploom.scaffold.parquet_tables import look_at_parquet
from caploom.scaffold.tables import TableLook, look_at_table, table_name_order
from caploom.storage.paths import exists, folder_of, is_folder, is_url, name_of

MOST_TABLES = 30
"""Tables of a folder that are looked into."""

_MOST_REQUESTS = 300
"""Questions to a storage service whether files exist; a listing answers the most."""

_SPLIT = re.compile(r"(?:^|/)(train|training|validation|valid|val|dev|test)[-_./]", re.IGNORECASE)
_OF_IMG2DATASET = re.compile(r"\d+(_stats\.json|\.parquet)")


def forms_of_folder(listing: Listing, images: str | None) -> Iterator[Callable[[], Recognized | None]]:
    """The forms that a folder may have, the most telling first; each gives None, or a `SourceError`, if it is not so.

    `images` is the folder of the images, where a person names it.
    """
    if _has_texts(listing) or _has_metadata(listing):
        yield partial(photos, listing)
    if len(listing.tars) > len(listing.images):
        yield partial(tars, listing)
    if not listing.images:
        yield partial(parquet, listing)
    for table in sorted(_caption_tables(listing), key=table_name_order)[:MOST_TABLES]:
        yield partial(of_table, table, images, listing)
    if listing.images:
        yield partial(photos, listing)
    elif listing.tars:
        yield partial(tars, listing)


def photos(listing: Listing) -> Recognized:
    """A folder of images, with their texts or metadata or with neither."""
    texts = sum(_text_of(uri) in listing.known for uri in listing.images)
    if _has_metadata(listing):
        what = f"a folder of images with {name_of(_metadata(listing)[0])}"
    elif texts and any(_OF_IMG2DATASET.fullmatch(name_of(uri)) for uri in listing.tables):
        what = "img2dataset's folders of images with texts"
    else:
        what = "a folder of images" + (" with texts" if texts else "")
    remarks = []
    if listing.tars:
        remarks.append(f"{counted(len(listing.tars), 'tars')} beside the images are not read.")
    pairs = {"reader": "image_folder", "root": listing.folder}
    return Recognized(what, pairs, tuple(remarks), (len(listing.images), listing.complete))


def tars(listing: Listing) -> Recognized:
    """A folder of webdataset's tars. Raises `SourceError` where they are compressed."""
    compressed = [uri for uri in listing.tars if is_compressed_tar(uri)]
    if len(compressed) == len(listing.tars):
        raise SourceError(f"{compressed[0]}: a compressed tar cannot be read in pieces; decompress it to .tar.")
    return Recognized(
        f"webdataset's {counted(len(listing.tars) - len(compressed), 'tars')}",
        {"reader": "webdataset", "tars": listing.folder},
        tuple(f"{name_of(uri)}: a compressed tar cannot be read; decompress it to .tar." for uri in compressed[:1]),
    )


def parquet(listing: Listing) -> Recognized | None:
    """Parquet files with the images in them, as the Hugging Face hub has them; of several splits the one to train."""
    files = [uri for uri in listing.files if suffix_of(uri) == ".parquet"]
    if not files:
        return None
    splits: dict[str, list[str]] = {}
    for uri in files:
        found = _SPLIT.search(uri.removeprefix(listing.folder))
        splits.setdefault(found[1] if found else "", []).append(uri)
    training = next((split for split in splits if split.lower().startswith("train")), None)
    chosen = splits[training] if training is not None else files
    keys = look_at_parquet(chosen[0])
    if keys is None:
        return None
    remarks, place = [], listing.folder
    if len(splits) > 1 and training is not None:
        place = _pattern(chosen, training, listing.folder)
        others = ", ".join(sorted(split or "files without a split" for split in splits if split != training))
        remarks.append(f"Its split {training} is read; beside it there is {others}.")
    what = f"{counted(len(chosen), 'Parquet files')} that hold images"
    return Recognized(what, {"reader": "parquet", "files": place, **keys}, tuple(remarks))


def of_table(table: str, images: str | None = None, listing: Listing | None = None) -> Recognized:
    """A table of images that lie elsewhere. Raises `SourceError` when it is none, or none of its images is found."""
    look = look_at_table(table)
    placed = _placed(table, look, images, listing)
    if placed is None:
        raise SourceError(_no_image_there(table, look, images))
    remarks = [f"{name_of(table)}: {look.remark}."] if look.remark else []
    pairs = {"reader": look.reader, "root": placed.root, "captions": table, **look.keys, **placed.keys}
    named = f", with downloads named {placed.keys['downloaded_as']}" if "downloaded_as" in placed.keys else ""
    return Recognized(f"{look.what}{named} ({name_of(table)})", pairs, tuple(remarks), splits=look.splits)


def _placed(table: str, look: TableLook, images: str | None, listing: Listing | None) -> Placed | None:
    near = [images] if images else [*(listing.folders if listing else []), *likely_roots(table)]
    if images is None and not is_url(table):
        near += _above_absolute([path for _, path in look.images])
    roots, has = list(dict.fromkeys(near)), _Files(listing).has
    if look.of_urls:
        return place_downloads(look.images, roots, has)
    paths = [path for _, path in look.images]
    return place_paths(paths, roots, has, may_rewrite=look.reader == "image_captions")


class _Files:
    """Which files there are: those of a listing, and those that the storage knows, which is asked only so often."""

    def __init__(self, listing: Listing | None) -> None:
        self._listing = listing
        self._remembered: dict[str, bool] = {}
        self._requests = 0

    def has(self, uri: str) -> bool:
        """Whether there is such a file."""
        listing = self._listing
        if not uri or (listing is not None and uri in listing.known):
            return bool(uri)
        if listing is not None and listing.complete and uri.startswith(listing.folder.rstrip("/") + "/"):
            return False
        if uri not in self._remembered:
            self._remembered[uri] = self._ask(uri)
        return self._remembered[uri]

    def _ask(self, uri: str) -> bool:
        if not is_url(uri):
            try:
                return Path(uri).is_file()
            except (OSError, ValueError):  # a name that is too long, or has a character that no name has
                return False
        self._requests += 1
        return self._requests <= _MOST_REQUESTS and exists(uri) and not is_folder(uri)


def _above_absolute(paths: list[str]) -> list[str]:
    """The folders above absolute paths that are there, except shards, which number on in folders beside them."""
    there = next((path for path in paths[:5] if path.startswith("/") and exists(path)), None)
    above = Path(there).parents if there is not None else []
    return [str(folder) for folder in above if not folder.name.isdecimal()][:-1]


def _no_image_there(table: str, look: TableLook, images: str | None) -> str:
    named = repr(look.images[0][1])
    below = f"in {images}" if images else "in the folders around it"
    if look.of_urls:
        return (
            f"{table}: {look.what}, which it names by URLs such as {named}, and no downloaded file of these was found "
            f"{below}; download them first, such as with img2dataset, or name their folder with --images."
        )
    return (
        f"{table}: {look.what}, and none of the files that it names, such as {named}, was found {below}; name the "
        "folder that these paths start from with --images."
    )


def _has_texts(listing: Listing) -> bool:
    """Whether at least half of the images have a text of the same name."""
    texts = sum(_text_of(uri) in listing.known for uri in listing.images)
    return 0 < len(listing.images) <= 2 * texts


def _text_of(image: str) -> str:
    return f"{image.rpartition('.')[0]}.txt"


def _metadata(listing: Listing) -> list[str]:
    return [uri for uri in listing.tables if name_of(uri) in METADATA_NAMES]


def _has_metadata(listing: Listing) -> bool:
    return bool(_metadata(listing)) and bool(listing.images)


def _caption_tables(listing: Listing) -> list[str]:
    return [uri for uri in listing.tables if not BOOKKEEPING.fullmatch(name_of(uri))]


def _pattern(files: list[str], split: str, below: str) -> str:
    """What names the files of a split: `data/train*.parquet`, the folder `train`, or both in any folder below."""
    folders = {folder_of(uri) for uri in files}
    if all(name_of(uri).startswith(split) for uri in files):
        return f"{folders.pop() if len(folders) == 1 else f'{below}/**'}/{split}*.parquet"
    above = {uri[: uri.index(f"/{split}/", len(below)) + len(split) + 1] for uri in files}
    return above.pop() if len(above) == 1 else f"{below}/**/{split}/*.parquet"
