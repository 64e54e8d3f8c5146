"""Near-duplicate captions of one image, for a whole bucket of images at once."""

from itertools import pairwise

import numpy as np
import pyarrow as pa

from caploom.training_set.words import split_words

_BITS = 62  # captions of an image that fit into the bits of one integer


def near_duplicates_of(texts: pa.Array, images: np.ndarray, threshold: float) -> np.ndarray:
    """bool of shape (N,): whether a caption is near an earlier one of its image that is itself kept.

    `texts` are N captions, `images` (N,) the numbers of their images, ascending from 0. Near: the Jaccard index of the
    two sets of lower-case words is at least `threshold`; two captions without any word are near.
    """
    result = np.zeros(len(texts), bool)
    if len(texts) == 0:
        return result
    captions = np.bincount(images)
    starts = np.cumsum(captions) - captions
    owner, words = split_words(texts)
    encoded = words.dictionary_encode()
    vocabulary = max(1, len(encoded.dictionary))
    # Each word of a caption once; sorted, since NumPy's own `unique` hashes, which is five times as slow here.
    held = np.sort(owner * vocabulary + encoded.indices.to_numpy())
    owner, tokens = np.divmod(held[_first(held)], vocabulary)
    sizes = np.bincount(owner, minlength=len(texts))
    for image in np.flatnonzero(captions > _BITS):
        rows = range(starts[image], starts[image] + captions[image])
        edges = np.searchsorted(owner, [*rows, rows.stop])
        sets = [frozenset(tokens[a:b].tolist()) for a, b in pairwise(edges)]
        result[rows.start : rows.stop] = _near_one_by_one(sets, threshold)

    # For each word of an image, the captions that contain it, as the bits of a number.
    position = np.arange(len(texts)) - starts[images]
    few = captions[images[owner]] <= _BITS
    owner, tokens = owner[few], tokens[few]
    order = np.argsort(images[owner] * vocabulary + tokens, kind="stable")
    owner, tokens = owner[order], tokens[order]
    if len(owner) == 0:
        groups, holders = np.zeros(0, np.int64), np.zeros(0, np.int64)
    else:
        keys = images[owner] * vocabulary + tokens
        first = np.flatnonzero(_first(keys))
        groups, holders = images[owner][first], np.bitwise_or.reduceat(np.int64(1) << position[owner], first)
    several = np.where(captions <= _BITS, captions, 0)
    for later in range(1, int(several.max(initial=0))):
        # Only images with that many captions continue: a single image with fifty must not slow down all of them.
        going_on = several[groups] > later
        groups, holders = groups[going_on], holders[going_on]
        holding = (holders >> later) & 1 == 1
        having = np.flatnonzero(several > later)
        row = starts[having] + later
        for earlier in range(later):
            both = groups[holding & ((holders >> earlier) & 1 == 1)]
            shared = np.bincount(both, minlength=len(captions))[having]
            other = starts[having] + earlier
            union = sizes[row] + sizes[other] - shared
            near = (shared >= threshold * union) & ~result[other]
            result[row[near]] = True
    return result


def _first(sorted_keys: np.ndarray) -> np.ndarray:
    """bool of shape (N,): where a key occurs for the first time."""
    first = np.ones(len(sorted_keys), bool)
    first[1:] = sorted_keys[1:] != sorted_keys[:-1]
    return first


def _near_one_by_one(sets: list[frozenset[int]], threshold: float) -> list[bool]:
    kept: list[frozenset[int]] = []
    near = []
    for words in sets:
        near.append(any(len(words & other) >= threshold * len(words | other) for other in kept))
        if not near[-1]:
            kept.append(words)
    return near
