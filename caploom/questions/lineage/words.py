"""A short description of an artifact's configuration, as its step declares it."""

from collections.abc import Mapping
from typing import Any

from caploom.common.text import shortened
from caploom.stages.registry import STAGES, load_stage
from caploom.stages.words import as_json


def in_few_words(kind: str, configuration: Mapping[str, Any]) -> str:
    """An artifact's configuration in words; for an unknown kind, as shortened JSON.

    Never raises: a manifest may be of another version of the stage, and the question is still answered.
    """
    words = load_stage(kind).words if kind in STAGES else None
    try:
        text = as_json(configuration) if words is None else words(configuration)
    except (KeyError, TypeError, AttributeError, ValueError):
        text = as_json(configuration)
    return shortened(text)
