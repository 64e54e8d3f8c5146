"""Shear-aware decoding: text that cannot survive the shears need not be generated.

The released code generates 30 tokens for every image and discards everything after the first full stop, which is
half of its decoding steps, as measured.
"""

from collections.abc import Sequence

from caploom.shearing.rules import RULES
from caploom.shearing.settings import ShearStep


def is_settled(text: str, stops: Sequence[Sequence[ShearStep]]) -> bool:
    """Whether every shear's result for `text` is the same for any continuation. Without shears: never."""
    return bool(stops) and all(_shear_is_settled(text, steps) for steps in stops)


def can_settle(stops: Sequence[Sequence[ShearStep]]) -> bool:
    """Whether some text can settle all these shears; none settles a shear that keeps everything."""
    return bool(stops) and all(_shear_can_settle(steps) for steps in stops)


def _shear_can_settle(steps: Sequence[ShearStep]) -> bool:
    for step in steps:
        if RULES[step.rule].settled is not None:
            return True
        if not RULES[step.rule].grows:
            return False
    return False


def _shear_is_settled(text: str, steps: Sequence[ShearStep]) -> bool:
    for step in steps:
        rule = RULES[step.rule]
        if rule.settled is not None and rule.settled(text, **step.parameters):
            return True
        if not rule.grows:
            return False
        # This rule's result so far is a prefix of its final result, which may be enough for the next rule.
        start, end = rule.function(text, **step.parameters)
        text = text[start:end]
    return False
