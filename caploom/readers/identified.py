"""Rows with the identity of their image, each image file read and really decoded once, however many captions it has."""

import os
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path

from caploom.images import ImageFault, decode_image, read_image_file
from caploom.readers.source_row import SourceRow
from caploom.records import image_identity

_ROWS_AHEAD = 512
_REMEMBERED = 65_536  # images whose rows need not stand together
_THREADS = min(8, os.cpu_count() or 1)


def identified_rows(rows: Iterable[SourceRow]) -> Iterator[tuple[SourceRow, str | ImageFault]]:
    """Each row with its image's identity, or with why it cannot be used; in order, in bounded memory."""
    known: OrderedDict[str, str | ImageFault] = OrderedDict()
    source = iter(rows)
    with ThreadPoolExecutor(_THREADS) as threads:
        while ahead := list(islice(source, _ROWS_AHEAD)):
            paths = dict.fromkeys(row.path for row in ahead if row.path is not None and row.path not in known)
            known.update(zip(paths, threads.map(_identity, paths), strict=True))
            for row in ahead:
                yield row, _of_row(row, known)
            while len(known) > _REMEMBERED:
                known.popitem(last=False)


def _of_row(row: SourceRow, known: OrderedDict[str, str | ImageFault]) -> str | ImageFault:
    if row.reason is not None or row.path is None:
        return ImageFault(row.reason or "bad_row", row.detail or f"row {row.row}: it names no image.")
    return known[row.path]


def _identity(path: str) -> str | ImageFault:
    try:
        data = read_image_file(Path(path))
        decode_image(data, path)
    except ImageFault as fault:
        return fault
    return image_identity(data)
