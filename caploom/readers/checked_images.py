"""Reads, checks and identifies every image of some rows once, several at a time, in the order of the rows."""

import os
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice

from caploom.errors import ImageFault
from caploom.images.check import CheckedImage, check_image
from caploom.images.location import read_location
from caploom.storage.records import image_identity

_MOST_THREADS = 8
# Images are handed to the threads in batches: one by one, that costs a third of checking them. A batch is bounded in
# bytes, so that few large images are in memory.
_FIRST_BATCH, _LARGEST_BATCH = 4, 64  # images
_BATCH_BYTES = 2_000_000


@dataclass(frozen=True, slots=True)
class IdentifiedImage:
    """An image that decodes: its identity, the result of the check, and its bytes."""

    image_id: str
    checked: CheckedImage
    data: bytes


Found = tuple[str, IdentifiedImage | ImageFault]


def checked_images(locations: Iterable[str]) -> Iterator[Found]:
    """Each location with its image, or with why it is unusable; in order, with only a few images in memory."""
    threads = min(_MOST_THREADS, _cores())  # decoding and hashing release Python's global lock
    return _in_threads(locations, threads) if threads > 1 else map(_identify, locations)


def _in_threads(locations: Iterable[str], count: int) -> Iterator[Found]:
    source, size = iter(locations), _FIRST_BATCH
    waiting: deque[Future[list[Found]]] = deque()
    with ThreadPoolExecutor(count) as threads:
        while True:
            while len(waiting) < 2 * count and (batch := list(islice(source, size))):
                waiting.append(threads.submit(list, map(_identify, batch)))
            if not waiting:
                return
            found = waiting.popleft().result()
            size = _batch_size(found)
            yield from found


def _batch_size(found: list[Found]) -> int:
    """The batch size for images like those read so far."""
    read = sum(len(image.data) for _, image in found if isinstance(image, IdentifiedImage))
    return max(1, min(_LARGEST_BATCH, _BATCH_BYTES * len(found) // max(1, read)))


def _identify(location: str) -> Found:
    try:
        data = read_location(location)
        return location, IdentifiedImage(image_identity(data), check_image(data, location), data)
    except ImageFault as fault:
        return location, fault


def _cores() -> int:
    """The cores that this process may use, which may be fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
