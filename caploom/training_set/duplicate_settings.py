"""The YAML's `duplicates`: how training images that look alike, or are evaluation images, are handled."""

from enum import StrEnum
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from caploom.common.json_schema import Shorthand
from caploom.common.settings import Settings
from caploom.training_set.hamming import MOST_BITS


class Policy(StrEnum):
    """How such images are handled."""

    EXCLUDE = "exclude"
    MARK = "mark"
    OFF = "off"


def _off_is_false(value: object) -> object:
    return Policy.OFF if value is False else value  # YAML reads `off` as false


PolicyKey = Annotated[Policy, BeforeValidator(_off_is_false), Shorthand({"const": False})]


class DuplicateSettings(Settings):
    """Near-duplicates among the training images, and training images among the evaluation images."""

    near: PolicyKey = Field(
        default=Policy.MARK,
        description="Of images that look alike all but one are counted (`mark`), left out (`exclude`), or not searched "
        "for (`off`).",
    )
    near_distance: int = Field(
        default=4, ge=0, le=MOST_BITS, description="Bits of 64 in which the perceptual hashes of such images differ."
    )
    leakage: PolicyKey = Field(
        default=Policy.EXCLUDE,
        description="Training images that are in one of the recipe's evaluation sets: left out, counted, or not "
        "looked for.",
    )
    leakage_distance: int = Field(
        default=4, ge=0, le=MOST_BITS, description="Bits in which they may differ from the evaluation image."
    )

    def identity(self) -> dict[str, Any]:
        """What decides a training set: the distance at which images are left out, None where none are."""
        return {
            "near": self.near_distance if self.near is Policy.EXCLUDE else None,
            "leakage": self.leakage_distance if self.leakage is Policy.EXCLUDE else None,
        }
