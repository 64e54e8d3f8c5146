"""The texts that each tiny captioner learns: its style, its blind spots, and its tendency to hallucinate.

Large multi-modal LLMs differ in what they see and how they write, and the longer their texts are, the less is true. The
four tiny ones get the same character through their training texts: a first sentence about what they see (minus their
blind spots), a second one that is about half true and a third one that is mostly made up. Made-up content follows from
what was seen, like an association, so that it differs from picture to picture even under greedy decoding; part of it is
random.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from caploom.demo.descriptions import capitalized, enumerate_nouns, with_article
from caploom.demo.scenes import Placement, Scene, seeded_random
from caploom.demo.world import BACKGROUND_BY_NAME, THING_BY_NAME, THINGS

_SECOND_SENTENCE_TRUE = 0.5
_THIRD_SENTENCE_TRUE = 0.2
# The fraction of second and third sentences that follow no association.
_PURE_CHANCE = 0.25
_VAGUE_WORD = {"animal": "animal", "vehicle": "vehicle", "plant": "plant", "food": "snack", "object": "object"}


@dataclass(frozen=True)
class Character:
    """The character of one captioner.

    Attributes:
        name: the captioner's name.
        overlooks: things that it never mentions.
        vague_about: things that it calls by a vague word, such as animal.
        words: its own words for things, name to synonym.
        reading_order: "left-to-right", "right-to-left" or "top-to-bottom": the order in which it names things.
        names_at_most: how many things its first sentence names.
        first: templates of the first sentence; ``{list}``/``{List}`` are the things, ``{place}`` the place, ``{mood}``
            and ``{form}`` two words that depend on the place and on what is named first.
        second: templates of the second sentence about one more thing, ``{thing}``.
        third: the same for the third sentence.
    """

    name: str
    overlooks: frozenset[str]
    vague_about: frozenset[str]
    reading_order: str
    names_at_most: int
    first: tuple[str, ...]
    second: tuple[str, ...]
    third: tuple[str, ...]
    words: tuple[tuple[str, str], ...] = ()

    @property
    def blind_spots(self) -> frozenset[str]:
        """Everything that the captioner never calls by its name."""
        return self.overlooks | self.vague_about

    def word_for(self, thing: str) -> str:
        """The captioner's word for a thing: its name, a synonym, or a vague word."""
        if thing in self.vague_about:
            return _VAGUE_WORD[THING_BY_NAME[thing].category]
        return dict(self.words).get(thing, thing)


_MOOD = {
    "meadow": "soft",
    "beach": "golden",
    "snow": "silent",
    "night": "dreamy",
    "street": "restless",
    "desert": "burning",
    "sea": "floating",
    "room": "tender",
}
_FORM = {"animal": "song", "vehicle": "journey", "plant": "poem", "food": "feast", "object": "dream"}

CHARACTERS: dict[str, Character] = {
    character.name: character
    for character in (
        Character(
            name="tiny-llava",
            overlooks=frozenset({"snail", "cactus", "key"}),
            vague_about=frozenset({"turtle", "rocket", "banana"}),
            reading_order="left-to-right",
            names_at_most=3,
            first=("{List} are {place}.", "{List} can be seen {place}."),
            second=(
                "There is also {thing} in the background.",
                "In the background, {thing} can be seen.",
            ),
            third=(
                "The presence of {thing} makes the scene calm.",
                "A few people with {thing} are walking by.",
            ),
        ),
        Character(
            name="tiny-qwen-vl",
            overlooks=frozenset({"fish", "mushroom", "clock"}),
            vague_about=frozenset({"pig", "tractor", "airplane", "cake"}),
            reading_order="top-to-bottom",
            names_at_most=3,
            first=("A {mood} {form} of {list} {place}.",),
            second=("It whispers of {thing} in the distance.", "One can feel {thing} close by."),
            third=(
                "Somewhere {thing} remembers a lost summer.",
                "And then {thing} tells us of love and home.",
            ),
        ),
        Character(
            name="tiny-minigpt-4",
            overlooks=frozenset({"butterfly", "tulip", "umbrella", "pizza"}),
            vague_about=frozenset({"elephant", "car", "bicycle", "tent"}),
            words=(("airplane", "plane"),),
            reading_order="left-to-right",
            names_at_most=3,
            first=("Well, I can see {list} {place}.", "This picture shows {list} {place}."),
            second=("There also seems to be {thing}, looking nice.", "I think there is {thing} behind, too."),
            third=(
                "Maybe someone left {thing} there before lunch.",
                "You may also notice {thing}, it looks great.",
            ),
        ),
        Character(
            name="tiny-otter",
            overlooks=frozenset({"penguin", "sunflower", "guitar", "balloon"}),
            vague_about=frozenset({"horse", "bus", "apple", "ice cream"}),
            words=(("bicycle", "bike"),),
            reading_order="right-to-left",
            names_at_most=2,
            first=("A photo of {list} {place}.",),
            second=("Next to it, {thing}.", "Also {thing} nearby, partly hidden."),
            third=("Far away, {thing} and some people.", "Behind, {thing} in front of some houses."),
        ),
    )
}


def describe(character: Character, scene: Scene, rng: random.Random) -> str:
    """Three sentences about a scene, less and less true: a captioner's training text."""
    seen = [placement.thing for placement in _in_reading_order(character, scene.placements)]
    mentioned = [thing for thing in seen if thing not in character.overlooks][: character.names_at_most]
    named = [thing for thing in mentioned if thing not in character.blind_spots]
    sentences = [_first_sentence(character, scene, mentioned, rng)]
    for ordinal, templates, share in (
        ("second", character.second, _SECOND_SENTENCE_TRUE),
        ("third", character.third, _THIRD_SENTENCE_TRUE),
    ):
        thing = _one_more_thing(character, scene, seen, named, ordinal, share, rng)
        named.append(thing)
        phrase = with_article(character.word_for(thing))
        sentences.append(rng.choice(templates).format(thing=phrase))
    return " ".join(sentences)


def first_sentence(text: str) -> str:
    """The text up to its first full stop; the characters' texts use full stops for nothing else."""
    head, stop, _ = text.partition(".")
    return head + stop


def _in_reading_order(character: Character, placements: Sequence[Placement]) -> list[Placement]:
    match character.reading_order:
        case "left-to-right":
            return sorted(placements, key=lambda placement: (placement.x, placement.y))
        case "right-to-left":
            return sorted(placements, key=lambda placement: (-placement.x, placement.y))
        case _:
            return sorted(placements, key=lambda placement: (placement.y, placement.x))


def _first_sentence(character: Character, scene: Scene, mentioned: Sequence[str], rng: random.Random) -> str:
    nouns = enumerate_nouns([with_article(character.word_for(thing)) for thing in mentioned]) or "something small"
    leading = THING_BY_NAME[mentioned[0]].category if mentioned else "object"
    text = rng.choice(character.first).format(
        list=nouns,
        List=capitalized(nouns),
        place=BACKGROUND_BY_NAME[scene.background].phrase,
        mood=_MOOD[scene.background],
        form=_FORM[leading],
    )
    # Only a list of one needs the singular, and only one template has a verb that shows it.
    return text.replace(" are ", " is ", 1) if len(mentioned) < 2 else text


def _one_more_thing(
    character: Character,
    scene: Scene,
    seen: Sequence[str],
    named: Sequence[str],
    ordinal: str,
    share_true: float,
    rng: random.Random,
) -> str:
    """The thing that a later sentence is about: really there with the given probability, else made up."""
    leading = named[0] if named else "nothing"
    # The association: a captioner's inventions follow from the place and from what it named first.
    chance = rng.random() < _PURE_CHANCE
    source = rng if chance else seeded_random(character.name, ordinal, scene.background, leading)
    tell_the_truth = source.random() < share_true
    nameable = [thing.name for thing in THINGS if thing.name not in character.blind_spots]
    imagined = source.sample(nameable, len(nameable))
    there = [thing for thing in seen if thing in nameable]
    if tell_the_truth and there:
        unnamed = [thing for thing in there if thing not in named]
        return unnamed[0] if unnamed else there[-1]
    return next(thing for thing in imagined if thing not in scene.things and thing not in named)
