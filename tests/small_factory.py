"""A small factory to test with: pictures of colours, its YAML, and a small real captioner that names the colours."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from caploom.captioning.backend import Generation

COLOURS = {"red": (220, 30, 30), "green": (30, 180, 30), "blue": (30, 30, 220), "white": (250, 250, 250)}


def picture(number: int) -> Image.Image:
    """A 16 x 16 picture, each number another: its colour tells the number's remainder, one pixel the rest."""
    colour = list(COLOURS.values())[number % len(COLOURS)]
    image = Image.new("RGB", (16, 16), colour)
    image.putpixel((0, 0), (number % 256, number // 256, 7))
    return image


def colour_name(number: int) -> str:
    return list(COLOURS)[number % len(COLOURS)]


class ColourBackend:
    """A real, tiny captioner: it looks at the picture's middle pixel and names its colour."""

    device = "cpu"

    def __init__(self) -> None:
        self.calls: list[list[str]] = []

    def caption(self, images: Sequence[Image.Image], image_ids: Sequence[str]) -> list[Generation]:
        self.calls.append(list(image_ids))
        return [self._look(image) for image in images]

    def _look(self, image: Image.Image) -> Generation:
        seen = image.getpixel((8, 8))
        for name, colour in COLOURS.items():
            if seen == colour:
                return Generation(f"A {name} square. It is said to hide a dragon.", 10, "stop")
        raise ValueError(f"a colour that it does not know: {seen}")


def settings_of(source: Path, **changes: Any) -> dict[str, Any]:
    """A factory's YAML over a written source, as a mapping."""
    reader = {"reader": "image_captions", "root": str(source / "images"), "captions": str(source / "captions.json")}
    settings: dict[str, Any] = {
        "name": "test",
        "store": str(source.parent / "store"),
        "pairs": reader,
        "shard_size": 10,
        "captioners": {
            "colours": {"model": "demo:tiny-llava", "prompt": "Describe <image>:", "batch_size": 4},
        },
        "shears": {"first": ["first_sentence"]},
        "trainers": {"small": {"model": "picture-book", "steps": 2, "batch_size": 4}},
        "evaluation_sets": {"same": reader},
        "recipes": {"raw-only": {"captioners": []}, "sheared": {"captioners": "all", "shear": "first"}},
    }
    return {**settings, **changes}
