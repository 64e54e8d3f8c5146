"""All pairs of 64-bit hashes that differ in few bits, found exactly and in memory that grows with the hashes alone.

The bits are divided into `agreeing + distance` bands. Two hashes that differ in at most `distance` bits agree in at
least `agreeing` whole bands, so that each such pair is adjacent in one of the sort orders by every choice of that many
bands (Manku et al. 2007, "Detecting near-duplicates for web crawling"). The result is exact: adjacent hashes are
compared bit by bit. How many bands must agree is chosen by its cost.
"""

import math
from collections.abc import Iterator
from itertools import combinations, pairwise
from typing import NamedTuple

import numpy as np

MOST_BITS = 8
"""The largest supported distance: unrelated photographs differ in about 32 of 64 bits."""

_CHUNK = 2**18  # pairs compared at once
_SORTING = 3.0  # measured cost of sorting a hash relative to comparing two


class Pairs(NamedTuple):
    """Pairs by index: `left` and `right` int64, and `bits` uint8 that differ. A pair may occur more than once."""

    left: np.ndarray
    right: np.ndarray
    bits: np.ndarray


def pairs_within(hashes: np.ndarray, distance: int) -> Iterator[Pairs]:
    """All pairs (left < right) of the hashes (N,) uint64 that differ in at most `distance` bits.

    Example:
        >>> hashes = np.array([0b1111, 0b1110, 2**40], np.uint64)
        >>> {tuple(pair) for found in pairs_within(hashes, 2) for pair in np.column_stack(found).tolist()}
        {(0, 1, 1)}
    """
    for masks in _choices(len(hashes), len(hashes), distance):
        keys = hashes & masks
        order = np.argsort(keys)
        keys = keys[order]
        positions = np.arange(len(keys))
        for rows, others in _side_by_side(positions + 1, np.searchsorted(keys, keys, "right")):
            found = _compared(hashes, hashes, order[rows], order[others], distance)
            yield Pairs(np.minimum(found.left, found.right), np.maximum(found.left, found.right), found.bits)


def pairs_between(left: np.ndarray, right: np.ndarray, distance: int) -> Iterator[Pairs]:
    """All pairs of one of the hashes `left` (N,) and one of `right` (M,) that differ in at most `distance` bits.

    Faster the fewer `left` are, as `right` is sorted and `left` is looked up.
    """
    for masks in _choices(len(left), len(right), distance):
        keys = right & masks
        order = np.argsort(keys)
        keys = keys[order]
        wanted = left & masks
        first, end = np.searchsorted(keys, wanted, "left"), np.searchsorted(keys, wanted, "right")
        for rows, others in _side_by_side(first, end):
            yield _compared(left, right, rows, order[others], distance)


def first_alike(hashes: np.ndarray, distance: int) -> np.ndarray:
    """For each of N different hashes, uint64 in order, the index of the first kept one near it: (N,) int64.

    A hash is kept, and is its own first, unless an earlier kept one differs in at most `distance` bits: every other
    hash is near a kept one. Pairs are not stored, so that many similar hashes take time and no memory.
    """
    positions = np.arange(len(hashes))
    near = np.zeros(len(hashes), bool)
    for found in pairs_within(hashes, distance):
        near[found.left] = near[found.right] = True
    concerned = np.flatnonzero(near)
    stays = ~near
    waiting = concerned
    while len(waiting):
        those = hashes[waiting]
        # A hash without an undecided earlier neighbour is kept, since a kept one decides its neighbours.
        first = np.ones(len(waiting), bool)
        for found in pairs_within(those, distance):
            first[found.right] = False
        goes = np.zeros(len(waiting), bool)
        for found in pairs_within(those, distance):
            goes[found.right[first[found.left]]] = True
        stays[waiting[first]] = True
        waiting = waiting[~(first | goes)]
    alike = positions.copy()
    for found in pairs_within(hashes[concerned], distance):
        left, right = concerned[found.left], concerned[found.right]
        taken = stays[left] & ~stays[right]
        np.minimum.at(alike, right[taken], left[taken])
    return alike


def _compared(left: np.ndarray, right: np.ndarray, rows: np.ndarray, others: np.ndarray, distance: int) -> Pairs:
    bits = np.bitwise_count(left[rows] ^ right[others])
    near = bits <= distance
    return Pairs(rows[near], others[near], bits[near])


def _side_by_side(first: np.ndarray, end: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Each row with each of the indices from its `first` up to its `end`, some at a time."""
    waiting = np.flatnonzero(first < end)
    while len(waiting):
        # A few rows with many candidates each (similar pictures) are still compared many at a time.
        width = max(1, _CHUNK // len(waiting))
        for start in range(0, len(waiting), _CHUNK):
            rows = waiting[start : start + _CHUNK]
            others = first[rows][:, None] + np.arange(width)
            inside = others < end[rows][:, None]
            yield np.broadcast_to(rows[:, None], others.shape)[inside], others[inside]
        first = first + width
        waiting = waiting[first[waiting] < end[waiting]]


def _choices(rows: int, others: int, distance: int) -> Iterator[np.uint64]:
    """The masks of the bands that have to agree, one choice at a time."""
    if not 0 <= distance <= MOST_BITS:
        raise ValueError(f"a distance of {distance} bits is not from 0 to {MOST_BITS}")
    agreeing = min(range(1, 6), key=lambda number: _cost(rows, others, distance, number))
    bands = _bands(agreeing + distance)
    for chosen in combinations(bands, agreeing):
        yield np.uint64(sum(chosen))


def _cost(rows: int, others: int, distance: int, agreeing: int) -> float:
    choices = math.comb(agreeing + distance, agreeing)
    bits = 64 * agreeing / (agreeing + distance)
    return choices * ((rows + others) * _SORTING + rows * others / 2**bits)


def _bands(count: int) -> list[int]:
    """64 bits divided into that many parts of about the same width, as masks."""
    edges = [round(64 * number / count) for number in range(count + 1)]
    return [(1 << end) - (1 << start) for start, end in pairwise(edges)]
