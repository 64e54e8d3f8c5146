"""Which of a row's captions a step trains on, and in which form; a function of seed, epoch and row alone."""

import hashlib
import struct
from collections.abc import Sequence

import numpy as np

from caploom.common.names import RAW_SOURCE
from caploom.shearing.rules import RULES

# The purpose of a drawn number; None, for compatibility, is the choice of the caption.
_ORDER, _SENTENCE = 1, 2
_LONGEST = 20_000  # characters searched for sentences: a longer text is not a caption, and takes quadratic time


def uniform(seed: int, epoch: int, row: int, *purpose: int) -> float:
    """A number in [0, 1) that depends on these alone, the same on every machine and library version."""
    digest = hashlib.blake2b(struct.pack(f"<{3 + len(purpose)}q", seed, epoch, row, *purpose), digest_size=8).digest()
    return (int.from_bytes(digest, "little") >> 11) / 2**53


def draw_one(weights: Sequence[float], *, seed: int, epoch: int, row: int) -> int:
    """The index of one caption, drawn by the row's weights."""
    if len(weights) == 1:
        return 0
    edges = np.cumsum(np.asarray(weights, dtype=np.float64))
    point = uniform(seed, epoch, row) * edges[-1]
    return min(int(np.searchsorted(edges, point, side="right")), len(weights) - 1)


def draw_several(sources: Sequence[str], count: int, *, seed: int, epoch: int, row: int) -> list[int]:
    """The indices of up to `count` of a row's captions, drawn without replacement; the first is a raw one if it can be.

    So an image's raw caption is in every step, and the others change from epoch to epoch.
    """
    shuffled = sorted(range(len(sources)), key=lambda index: uniform(seed, epoch, row, _ORDER, index))
    raw = next((index for index in shuffled if sources[index] == RAW_SOURCE), shuffled[0])
    return [raw, *(index for index in shuffled if index != raw)][:count]


def random_sentence(text: str, *, seed: int, epoch: int, row: int, caption: int) -> str:
    """One of the text's sentences, split like the shear rule `first_sentence`."""
    found = sentences(text)
    return found[int(uniform(seed, epoch, row, _SENTENCE, caption) * len(found))] if found else text


def sentences(text: str) -> list[str]:
    """The sentences of a text, without the whitespace between them; none when it is blank."""
    first_sentence = RULES["first_sentence"].function
    found = []
    rest = text[:_LONGEST].strip()
    while rest:
        start, end = first_sentence(rest)
        found.append(rest[start:end])
        rest = rest[max(end, 1) :].strip()
    return found
