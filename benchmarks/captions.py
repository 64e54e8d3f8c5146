"""Realistic captions, seeded: of raw alt-text and of several captioners, 10 to 60 words in several sentences.

Sentences are put together once into a stock, and captions drawn from it with vector kernels: a million of them take
seconds. What makes shearing hard is among them: abbreviations, decimals, initials, quotes, ellipses, line breaks, curly
quotes, accents, emoji, HTML entities, other scripts.
"""

import random
from collections.abc import Iterator
from functools import cache

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

CAPTIONERS = ("minigpt-4", "otter", "qwen-vl", "llava-1.5")

_NOUNS = (
    "dog cat man woman child horse bicycle car bus boat kitchen table chair window tree mountain river beach street"
    " building bridge clock tower plate sandwich pizza cup laptop keyboard phone book shelf garden flower field fence"
    " train station airplane runway umbrella jacket hat dress guitar stage crowd player ball court snowboard slope"
    " surfer wave elephant giraffe zebra sheep cow bird bench park lamp mirror sink bathroom bed blanket pillow"
).split()
_ADJECTIVES = (
    "red blue green large small old wooden bright dark young smiling white black brown colourful busy quiet modern"
    " rustic vintage sunny cloudy snowy sandy tall narrow wide round shiny weathered elegant casual striped fluffy"
).split()
_VERBS = (
    "sits stands walks rests plays looks waits lies runs leans poses works eats rides jumps sleeps reads talks"
).split()
_PLACES = (
    "in the background;on a wooden table;near the river;beside a window;under a clear sky;at the station;in a park;"
    "on the street;behind a fence;in front of a building;along the beach;next to a tree;on the grass;in the kitchen"
).split(";")
_OPENINGS = (
    "The image shows ;In this picture, we can see ;The photo features ;This is a picture of ;The image depicts ;;;;;;;"
).split(";")
_CLOSINGS = (
    "The overall mood of the scene is calm and inviting.;It appears to be a sunny day.;The colours are warm and soft.;"
    "There are several other people visible in the distance.;The atmosphere is lively, and everyone seems happy."
).split(";")
_HARD = (
    "St. Peter's Square is full of people.",
    "The tower is 3.5 metres high and 1.2 metres wide.",
    "A U.S. Army truck passes.",
    "Mr. Smith and Dr. J. Jones talk.",
    "At 5 p.m. the sun sets over the bay.",
    'He says "stop!" and smiles.',
    'A sign reads "NO. 7 MAIN ST." in large letters.',
    "They live in the U.S. The flag is red.",
    "Fruit, e.g. apples, lies there.",
    "It fades away... Then it is gone.",
    "A cat … and a dog rest.",
    "Is it a toy? Perhaps it is.",
    "What a view!",
    "Two lines\nof text are on it.",
    "Fish & chips cost £5.50 here.",
    "Ben &amp",
    " Jerry's ice cream is sold.",
    "The café’s façade is painted “Provençal blue”.",
    "An élève reads – slowly.",
    "A jalapeño is on the naïve painter’s plate.",
    "Visit www.example.org for more.",
    "A 🐶 and a 🐱 are drawn on it.",
    "一只狗在跑。它很高兴。",
    "赤い船が港にある。",
    "Собака бежит по пляжу.",
    "يجلس الرجل على الكرسي؟ نعم.",
)


def caption_column(rows: int, *, seed: int = 0, block: int = 100_000) -> Iterator[pa.Array]:
    """`rows` captions of 10 to 60 words as string arrays of at most `block` rows."""
    rng = np.random.default_rng(seed)
    stock = {name: pa.array(texts) for name, texts in _stock(seed).items()}
    for start in range(0, rows, block):
        yield _captions(min(block, rows - start), rng, stock)


def raw_caption_column(rows: int, *, seed: int = 0, block: int = 100_000) -> Iterator[pa.Array]:
    """`rows` raw captions: web alt-text of 3 to 20 words, many without a stop, as string arrays."""
    rng = np.random.default_rng([seed, 1])
    chance = random.Random(f"raw {seed}")
    stock = pa.array([_alt_text(chance) for _ in range(20_000)])
    for start in range(0, rows, block):
        count = min(block, rows - start)
        numbers = pa.array(rng.integers(0, 10_000_000, count)).cast(pa.string())
        drawn = stock.take(pa.array(rng.integers(0, len(stock), count)))
        numbered = pc.binary_join_element_wise(drawn, numbers, " ")
        # Most alt-texts are of one image only, some of very many.
        yield pc.if_else(pa.array(rng.random(count) < 0.8), numbered, drawn)


@cache
def _stock(seed: int) -> dict[str, list[str]]:
    chance = random.Random(seed)
    openings = [_opening(chance) for _ in range(40_000)]
    return {
        "first": openings,
        "more": [_sentence(chance) for _ in range(40_000)],
        "hard": list(_HARD),
        "last": list(_CLOSINGS),
    }


def _captions(count: int, rng: np.random.Generator, stock: dict[str, pa.Array]) -> pa.Array:
    def drawn(name: str, share: float) -> pa.Array:
        """A sentence a caption, null where a caption has none of this kind."""
        places = rng.integers(0, len(stock[name]), count)
        return stock[name].take(pa.array(places, mask=rng.random(count) >= share))

    # 4 in 100 begin with something hard.
    hard_first = drawn("hard", 0.04)
    first = pc.coalesce(hard_first, drawn("first", 1.0))
    parts = [first, drawn("more", 0.5), drawn("hard", 0.08), drawn("more", 0.15), drawn("last", 0.5)]
    return pc.binary_join_element_wise(*parts, " ", null_handling="skip")


def _opening(chance: random.Random) -> str:
    text = chance.choice(_OPENINGS) + _phrase(chance)
    return text[0].upper() + text[1:] + chance.choice(".....!")


def _phrase(chance: random.Random) -> str:
    parts = [f"a {chance.choice(_ADJECTIVES)} {chance.choice(_NOUNS)} that {chance.choice(_VERBS)}"]
    parts.append(chance.choice(_PLACES))
    if chance.random() < 0.7:
        parts.append(f"with a {chance.choice(_ADJECTIVES)} {chance.choice(_NOUNS)}")
    if chance.random() < 0.4:
        parts.append(f"and {chance.randint(2, 30)} {chance.choice(_NOUNS)}s")
    return " ".join(parts)


def _sentence(chance: random.Random) -> str:
    begin = chance.choice(("There is", "Nearby is", "On the left is", "One can also see", "Behind it stands"))
    return (
        f"{begin} {_phrase(chance)}{chance.choice(',;')} {chance.choice(('while', 'and', 'where'))} {_phrase(chance)}."
    )


def _alt_text(chance: random.Random) -> str:
    words = [chance.choice(_ADJECTIVES), chance.choice(_NOUNS), *chance.choice(_PLACES).split()]
    extra = ["stock", "photo", "|", chance.choice(_NOUNS), "-", str(chance.randint(1990, 2024)), chance.choice(_NOUNS)]
    return " ".join(words + extra[: chance.randint(0, len(extra))])
