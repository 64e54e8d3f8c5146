"""Adds to rows the identity of their image; each image file is read and decoded once, for all its captions."""

import os
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice

from caploom.images.check import NO_HASH, check_image
from caploom.images.decode import ImageFault, decode_image, read_image_file
from caploom.readers.source_row import SourceRow
from caploom.storage.records import image_identity

_ROWS_AHEAD = 512
_REMEMBERED = 65_536  # images whose rows need not be adjacent
_THREADS = min(8, os.cpu_count() or 1)


@dataclass(frozen=True, slots=True)
class Identified:
    """An image that decodes: its identity, and its perceptual hash (see `caploom.images.check`)."""

    image_id: str
    phash: int


def identified_rows(rows: Iterable[SourceRow]) -> Iterator[tuple[SourceRow, Identified | ImageFault]]:
    """Each row with its image's identity, or with why it is unusable; in order, in bounded memory."""
    known: OrderedDict[str, Identified | ImageFault] = OrderedDict()
    source = iter(rows)
    with ThreadPoolExecutor(_THREADS) as threads:
        while ahead := list(islice(source, _ROWS_AHEAD)):
            paths = dict.fromkeys(
                row.path for row in ahead if row.path and row.reason is None and row.path not in known
            )
            known.update(zip(paths, threads.map(_identify, paths), strict=True))
            for row in ahead:
                yield row, _of_row(row, known)
            while len(known) > _REMEMBERED:
                known.popitem(last=False)


def _of_row(row: SourceRow, known: OrderedDict[str, Identified | ImageFault]) -> Identified | ImageFault:
    if row.reason is not None or row.path is None:
        return ImageFault(row.reason or "bad_row", row.detail or f"row {row.row}: it names no image.")
    return known[row.path]


def _identify(path: str) -> Identified | ImageFault:
    try:
        data = read_image_file(path)
        return Identified(image_identity(data), _hash_of(data, path))
    except ImageFault as fault:
        return fault


def _hash_of(data: bytes, path: str) -> int:
    try:
        return check_image(data, path).phash
    except ImageFault as fault:
        if fault.reason != "corrupt_image":
            raise
        # A published evaluation set is measured unchanged: models see a damaged image as the decoder shows it.
        decode_image(data, path)
        return NO_HASH
