"""Shear-aware decoding: when nothing more of a text can survive the shears, it need not be generated.

The released code generates 30 tokens for every image and throws away what follows the first full stop: measured, half
of its decoding steps.
"""

from collections.abc import Sequence

from caploom.shearing.rules import RULES
from caploom.shearing.settings import ShearStep


def is_settled(text: str, stops: Sequence[Sequence[ShearStep]]) -> bool:
    """Whether every shear gives of `text` what it will give however the text goes on. No shears: never."""
    return bool(stops) and all(_shear_is_settled(text, steps) for steps in stops)


def can_settle(stops: Sequence[Sequence[ShearStep]]) -> bool:
    """Whether there is a text that all these shears are settled by; a shear that keeps all never is."""
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
        # What this rule keeps so far is the beginning of what it will keep: the next rule may have enough of it.
        start, end = rule.function(text, **step.parameters)
        text = text[start:end]
    return False
