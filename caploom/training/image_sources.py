"""Where a training's images come from: files that are decoded, resized images on disk, memory."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import pyarrow as pa

from caploom.errors import TrainingError
from caploom.storage.tables import read_table
from caploom.training.images import ImageDecoder
from caploom.training_set.order import digest_words, image_digests

PIXELS_FILE, IMAGES_FILE = "pixels.npy", "images.parquet"
"""A folder of resized images: uint8 (N, 3, height, width), and the identities in the same order."""


class ImageSource(Protocol):
    """Provides a model's images, like `ImageDecoder`."""

    def decode(self, path: str, image_id: str) -> np.ndarray:
        """uint8 (3, height, width); raises `ImageFault`."""
        ...


class ImageCache:
    """Images by identity, kept in memory up to a number of bytes.

    It fills up and then evicts nothing: epochs are permutations, so the oldest entry is as likely to be needed as the
    newest, and evicting would only cost time.
    """

    def __init__(self, source: ImageSource, max_bytes: int) -> None:
        self._source = source
        self._free = max_bytes
        self._images: dict[str, np.ndarray] = {}

    def decode(self, path: str, image_id: str) -> np.ndarray:
        """The image of that identity, from memory or from the source."""
        held = self._images.get(image_id)
        if held is not None:
            return held
        image = self._source.decode(path, image_id)
        if image.nbytes <= self._free:
            self._free -= image.nbytes
            self._images[image_id] = image
        return image


class ResizedImages:
    """Images from folders of resized ones, mapped into memory; missing ones are decoded from their files.

    Memory: 28 bytes per image.
    """

    def __init__(self, folders: Sequence[Path], decoder: ImageDecoder) -> None:
        self._decoder = decoder
        self._pixels = [np.load(folder / PIXELS_FILE, mmap_mode="r") for folder in folders]
        words, folder_of, place_of = [], [], []
        for number, (folder, pixels) in enumerate(zip(folders, self._pixels, strict=True)):
            if pixels.shape[1:] != decoder.shape:
                raise TrainingError(f"{folder}: its images are {pixels.shape[1:]} but the model takes {decoder.shape}.")
            ids = read_table(folder / IMAGES_FILE, ["image_id"])["image_id"]
            words.append(_words(ids.combine_chunks()))
            folder_of.append(np.full(len(ids), number, np.int32))
            place_of.append(np.arange(len(ids), dtype=np.int64))
        together = np.concatenate(words)
        order = np.lexsort((together[:, 1], together[:, 0]))
        self._words = together[order]
        self._folder_of, self._position_of = np.concatenate(folder_of)[order], np.concatenate(place_of)[order]

    def decode(self, path: str, image_id: str) -> np.ndarray:
        """See `ImageSource`. Identities are compared by 128 of their bits."""
        first, second = _words(pa.array([image_id]))[0]
        position = int(np.searchsorted(self._words[:, 0], first))
        if position == len(self._words) or tuple(self._words[position]) != (first, second):
            return self._decoder.decode(path, image_id)
        return np.array(self._pixels[self._folder_of[position]][self._position_of[position]])


def _words(image_ids: pa.Array) -> np.ndarray:
    return np.asarray(digest_words(image_digests(image_ids))[:, :2])
