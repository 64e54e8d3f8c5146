"""Human captions of a scene: poor web captions, and the clean captions of the evaluation set.

The tiny captioners' texts are in ``characters.py``.
"""

import random
from collections.abc import Sequence

from caploom.demo.scenes import Scene
from caploom.demo.world import BACKGROUND_BY_NAME, THING_BY_NAME

CAPTIONS_PER_EVALUATION_IMAGE = 5

# Fractions of the three kinds of poor caption: one thing named, only the place named, nothing named.
_NAMES_ONE_THING = 0.5
_NAMES_THE_PLACE = 0.25

_ONE_THING = (
    "my {thing}",
    "a {thing} picture for kids",
    "{thing} clip art",
    "the best {thing} of the year, buy it online",
    "{thing} stock photo",
    "look at this {thing}",
    "cute {thing} drawing, high resolution",
    "{thing} - free vector",
    "{plural} for sale, best price",
)
_ONLY_THE_PLACE = (
    "a day {place}",
    "a picture taken {place}",
    "{place} with the family",
    "wallpaper: {place}",
    "what we saw {place} last year",
)
_BOILERPLATE = (
    "img_{number:04d}",
    "DSC_{number:04d}.JPG",
    "my favourite photo",
    "free download wallpaper",
    "image may contain art",
    "untitled",
    "click to enlarge",
    "photo of the day, number {number}",
)

_EVALUATION = (
    "{List} are {place}.",
    "{Place} there is {list}.",
    "A picture of {list} {place}.",
    "A scene {place} with {list}.",
    "A picture-book drawing of {list}.",
    "You can see {list} {place}.",
    "This drawing shows {list}.",
    "{List}, all together {place}.",
)


def with_article(name: str) -> str:
    """``"ice cream"`` becomes ``"an ice cream"``; a synonym of a thing is taken as well."""
    article = "an" if name[0] in "aeiou" else "a"
    return f"{article} {name}"


def enumerate_nouns(nouns: Sequence[str]) -> str:
    """Join noun phrases the English way: ``a``, ``a and b``, ``a, b and c``."""
    if len(nouns) < 2:
        return "".join(nouns)
    return ", ".join(nouns[:-1]) + " and " + nouns[-1]


def capitalized(text: str) -> str:
    """The text with its first letter in upper case and the rest left alone."""
    return text[:1].upper() + text[1:]


def raw_caption(scene: Scene, rng: random.Random) -> str:
    """A caption as poor as web alt-text: one thing of two or three, or only the place, or boilerplate."""
    kind = rng.random()
    if kind < _NAMES_ONE_THING:
        thing = THING_BY_NAME[rng.choice(scene.things)]
        return rng.choice(_ONE_THING).format(thing=thing.name, plural=thing.plural)
    if kind < _NAMES_ONE_THING + _NAMES_THE_PLACE:
        return rng.choice(_ONLY_THE_PLACE).format(place=BACKGROUND_BY_NAME[scene.background].phrase)
    return rng.choice(_BOILERPLATE).format(number=rng.randrange(1, 10_000))


def evaluation_captions(scene: Scene, rng: random.Random) -> list[str]:
    """Five different clean captions of a scene: each names every thing, most name the place too."""
    place = BACKGROUND_BY_NAME[scene.background].phrase
    captions = []
    for template in rng.sample(_EVALUATION, CAPTIONS_PER_EVALUATION_IMAGE):
        nouns = enumerate_nouns([with_article(name) for name in rng.sample(scene.things, len(scene.things))])
        captions.append(template.format(list=nouns, List=capitalized(nouns), place=place, Place=capitalized(place)))
    return captions
