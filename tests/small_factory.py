"""A small factory to test with: pictures of colours, its YAML, and a small real captioner that names the colours."""

import json
from collections.abc import Generator, Iterable, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from caploom.captioning.backend import CanaryRow, Chunk, Generation, ImageRef
from caploom.captioning.engine import BatchEngine
from caploom.captioning.settings import Captioner
from caploom.storage.records import image_identity

COLOURS = {"red": (220, 30, 30), "green": (30, 180, 30), "blue": (30, 30, 220), "white": (250, 250, 250)}


def picture(number: int) -> Image.Image:
    """A 16 x 16 picture, each number another: its colour tells the number's remainder, one pixel the rest."""
    colour = list(COLOURS.values())[number % len(COLOURS)]
    image = Image.new("RGB", (16, 16), colour)
    image.putpixel((0, 0), (number % 256, number // 256, 7))
    return image


def colour_name(number: int) -> str:
    return list(COLOURS)[number % len(COLOURS)]


def write_pictures(folder: Path, count: int) -> list[ImageRef]:
    """`count` pictures as files, and what names them to a captioner."""
    refs = []
    for number in range(count):
        path = folder / f"{number}.png"
        picture(number).save(path)
        refs.append(ImageRef(image_identity(path.read_bytes()), str(path), path.name))
    return refs


def source_in(folder: Path, count: int, extra: Sequence[Any] = ()) -> Path:
    """A folder of `count` pictures and their captions.json; `extra` rows are appended as they are."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    rows: list[Any] = []
    for number in range(count):
        picture(number).save(folder / "images" / f"{number:04d}.png")
        rows.append({"image": f"{number:04d}.png", "caption": f"photo {number}"})
    (folder / "captions.json").write_text(json.dumps([*rows, *extra]), encoding="utf-8")
    return folder


class ColourBackend:
    """A real, tiny captioner: it looks at the picture's middle pixel and names its colour."""

    device = "cpu"

    def __init__(self, batch_size: int = 4, prefetch: int = 2) -> None:
        self.calls: list[list[str]] = []
        self.facts: dict[str, Any] = {}
        self.engine = BatchEngine(self, batch_size, prefetch)

    def caption(self, refs: Iterable[ImageRef]) -> Generator[Chunk, None, None]:
        return self.engine.caption(refs)

    def canary(self, refs: Sequence[ImageRef]) -> list[CanaryRow] | None:
        return None

    def close(self) -> None:
        pass

    def length(self, ref: ImageRef) -> float:
        return 0.0

    def free_memory(self) -> None:
        pass

    def prepare(self, images: Sequence[Image.Image], refs: Sequence[ImageRef]) -> Any:
        return list(zip(images, [ref.image_id for ref in refs], strict=True))

    def generate(self, prepared: Any) -> list[Generation]:
        self.calls.append([image_id for _, image_id in prepared])
        return [self.look(image) for image, _ in prepared]

    def look(self, image: Image.Image) -> Generation:
        seen = image.getpixel((8, 8))
        for name, colour in COLOURS.items():
            if seen == colour:
                return Generation(f"A {name} square. It is said to hide a dragon.", 10, "stop")
        raise ValueError(f"a colour that it does not know: {seen}")


def captioner_of(settings: dict[str, Any]) -> Any:
    """A captioner's settings as the YAML gives them."""
    from pydantic import TypeAdapter

    return TypeAdapter(Captioner).validate_python(settings)


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
        "duplicates": {"leakage": "off"},  # its few pictures are much alike, and some are evaluated on
        "evaluation_sets": {"same": reader},
        "recipes": {"raw-only": {"captioners": []}, "sheared": {"captioners": "all", "shear": "first"}},
    }
    return {**settings, **changes}
