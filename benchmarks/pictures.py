"""Pictures to work on: JPEG files that cost what a photograph from the web costs to read, decode and resize. Seeded."""

import io
from pathlib import Path

import numpy as np
from PIL import Image

from caploom.demo.scenes import compose, render

_NOISE = 8.0  # standard deviation in grey levels: with it a file of 640 x 480 has about 78 kB
_QUALITY = 88


def write_pictures(folder: Path, count: int, *, width: int, height: int, seed: int = 0) -> list[Path]:
    """Write `count` picture-book scenes, scaled up and with a camera's noise; the paths, in their order."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number in range(count):
        path = folder / f"{number:06d}.jpg"
        path.write_bytes(_picture(seed, number, width, height))
        paths.append(path)
    return paths


def _picture(seed: int, number: int, width: int, height: int) -> bytes:
    scene = render(compose(seed, "evaluation", number)).resize((width, height), Image.Resampling.BICUBIC)
    noise = np.random.default_rng([seed, number]).standard_normal((height, width, 3), dtype=np.float32) * _NOISE
    pixels = (np.asarray(scene, dtype=np.float32) + noise).clip(0, 255).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format="JPEG", quality=_QUALITY)
    return file.getvalue()
