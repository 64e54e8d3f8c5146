"""Embeddings as a trained model leaves them: five captions an image, gathered around it and not all nearest to it."""

from pathlib import Path

import numpy as np

CAPTIONS_AN_IMAGE = 5
DIMENSIONS = 512
_AT_ONCE = 10_000


def write_inputs(folder: Path, images: int) -> None:
    """`images.npy` (images, 512), `texts.npy` (five of each, 512), float32 of length 1, and `owners.npy`."""
    random = np.random.default_rng(0)
    shapes = {"images": (images, DIMENSIONS), "texts": (images * CAPTIONS_AN_IMAGE, DIMENSIONS)}
    arrays = {
        name: np.lib.format.open_memmap(folder / f"{name}.npy", mode="w+", dtype=np.float32, shape=shape)
        for name, shape in shapes.items()
    }
    for start in range(0, images, _AT_ONCE):
        scenes = random.normal(size=(min(_AT_ONCE, images - start), DIMENSIONS)).astype(np.float32)
        arrays["images"][start : start + len(scenes)] = _seen(random, scenes)
        first = start * CAPTIONS_AN_IMAGE
        captions = _seen(random, np.repeat(scenes, CAPTIONS_AN_IMAGE, axis=0))
        arrays["texts"][first : first + len(captions)] = captions
    np.save(folder / "owners.npy", np.repeat(np.arange(images), CAPTIONS_AN_IMAGE))


def read_inputs(folder: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Images, texts, and of which image each text is."""
    images, texts, owners = (np.load(folder / f"{name}.npy") for name in ("images", "texts", "owners"))
    return images, texts, owners


def _seen(random: np.random.Generator, scenes: np.ndarray) -> np.ndarray:
    noisy = scenes + 2.2 * random.standard_normal(scenes.shape, dtype=np.float32)
    unit: np.ndarray = noisy / np.linalg.norm(noisy, axis=1, keepdims=True)
    return unit
