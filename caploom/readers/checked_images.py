"""Every image of some rows read, checked and identified once, several at a time, in the order of the rows."""

import os
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice

from caploom.errors import ImageFault
from caploom.image_check import CheckedImage, check_image
from caploom.locations import read_location
from caploom.records import image_identity

_THREADS = min(8, os.cpu_count() or 1)  # decoding and hashing leave Python's lock to the others
_AHEAD = 4 * _THREADS


@dataclass(frozen=True, slots=True)
class IdentifiedImage:
    """An image that decodes: its identity, what the check found, and its bytes."""

    image_id: str
    checked: CheckedImage
    data: bytes


def checked_images(locations: Iterable[str]) -> Iterator[tuple[str, IdentifiedImage | ImageFault]]:
    """Each location with its image, or with why it cannot be used; in order, only a few images in memory."""
    source = iter(locations)
    with ThreadPoolExecutor(_THREADS) as threads:
        waiting: deque[tuple[str, Future[IdentifiedImage | ImageFault]]] = deque(
            (location, threads.submit(_identify, location)) for location in islice(source, _AHEAD)
        )
        while waiting:
            location, future = waiting.popleft()
            yield location, future.result()
            for following in islice(source, 1):
                waiting.append((following, threads.submit(_identify, following)))


def _identify(location: str) -> IdentifiedImage | ImageFault:
    try:
        data = read_location(location)
        return IdentifiedImage(image_identity(data), check_image(data, location), data)
    except ImageFault as fault:
        return fault
