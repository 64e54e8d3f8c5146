"""The order of a training set: a seeded shuffle of the images that is the same on every machine.

An image's key is a mix of the seed and the first 64 bits of its identity; the order is that of (key, identity).
It does not depend on shards, captioners or the order in which they were read.
"""

import numpy as np
import pyarrow as pa

from caploom.errors import StoreError

ID_DIGITS = 64
"""Hexadecimal digits of an image's identity."""

DIGEST = pa.binary(32)

_HEX_PAIRS = np.frombuffer("".join(f"{byte:02x}" for byte in range(256)).encode("ascii"), np.uint16)


def image_digests(image_ids: pa.Array) -> np.ndarray:
    """The 32 bytes of each hexadecimal identity: (N, 32) uint8.

    Raises `StoreError` for an identity that is not 64 digits long.
    """
    count = len(image_ids)
    if count == 0:
        return np.empty((0, 32), np.uint8)
    offsets = np.frombuffer(image_ids.buffers()[1], np.int32)[image_ids.offset : image_ids.offset + count + 1]
    if np.any(np.diff(offsets) != ID_DIGITS):
        raise StoreError("a table has an image_id that is not a SHA-256: it was not written by Caploom; rebuild it.")
    digits = np.frombuffer(image_ids.buffers()[2], np.uint8)[offsets[0] : offsets[-1]].view("<u8")
    # Eight digits at a time: "0" to "9" end in their value, "a" to "f" in their value less nine and have bit 6 set.
    nibbles = digits & np.uint64(0x0F0F0F0F0F0F0F0F)
    nibbles += ((digits >> np.uint64(6)) & np.uint64(0x0101010101010101)) * np.uint64(9)
    nibbles = (nibbles << np.uint64(4)) | (nibbles >> np.uint64(8))
    return np.ascontiguousarray(nibbles.view(np.uint8)[::2]).reshape(count, 32)


def image_ids(digests: np.ndarray) -> pa.Array:
    """The identities in hexadecimal, as strings, of (N, 32) uint8."""
    count = len(digests)
    digits = np.ascontiguousarray(_HEX_PAIRS[digests])
    offsets = np.arange(count + 1, dtype=np.int32) * ID_DIGITS
    return pa.Array.from_buffers(pa.string(), count, [None, pa.py_buffer(offsets), pa.py_buffer(digits)])


def digest_words(digests: np.ndarray) -> np.ndarray:
    """(N, 32) uint8 as (N, 4) uint64 that sort like the identities."""
    return np.ascontiguousarray(digests).view(">u8").astype(np.uint64)


def first_words(digests: np.ndarray) -> np.ndarray:
    """The first 64 bits of (N, 32) uint8: (N,) uint64."""
    return np.ascontiguousarray(digests).view(">u8")[:, 0].astype(np.uint64)


def digest_column(digests: np.ndarray) -> pa.Array:
    """(N, 32) uint8 as an Arrow column, without a copy."""
    return pa.Array.from_buffers(DIGEST, len(digests), [None, pa.py_buffer(np.ascontiguousarray(digests))])


def digests_of(column: pa.Array) -> np.ndarray:
    """The reverse of `digest_column`."""
    values = np.frombuffer(column.buffers()[1] or b"", np.uint8)
    return values[column.offset * 32 : (column.offset + len(column)) * 32].reshape(-1, 32)


def order_keys(first_words: np.ndarray, seed: int) -> np.ndarray:
    """The keys (N,) uint64 for the first 64 bits of images' identities: SplitMix64, a bijection for each seed."""
    start = _split_mix(np.array([seed], np.uint64))
    return _split_mix(first_words ^ start)


def _split_mix(values: np.ndarray) -> np.ndarray:
    mixed = values + np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))
