"""Ready-made captioners: `preset: llava-1.5` in the YAML stands for an entry of `presets.yaml`."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from caploom.common.settings import nearest
from caploom.errors import ConfigError

PRESETS = Path(__file__).with_name("presets.yaml")


@cache
def presets() -> Mapping[str, Mapping[str, Any]]:
    """Every preset by name, as the mapping that a captioner in the YAML would be."""
    loaded: Mapping[str, Mapping[str, Any]] = yaml.safe_load(PRESETS.read_text(encoding="utf-8"))
    return loaded


def preset_named(name: Any) -> Mapping[str, Any]:
    """A preset; raises `ConfigError` naming the known ones.

    Example:
        >>> preset_named("llava-1.5")["model"]
        'llava-hf/llava-1.5-7b-hf'
    """
    if name not in presets():
        known = list(presets())
        raise ConfigError(f'There is no preset "{name}"; known: {", ".join(known)}{nearest(str(name), known)}.')
    return presets()[name]


def expand_preset(value: Mapping[str, Any]) -> dict[str, Any]:
    """A captioner's mapping with its preset filled in, its own keys first; raises `ValueError` on an unknown preset.

    Mappings inside (`decoding`, `processor`, `extra_body`) are merged key by key. `about` is for readers only.
    """
    if "preset" not in value:
        return dict(value)
    try:
        preset = preset_named(value["preset"])
    except ConfigError as error:
        raise ValueError(str(error).removesuffix(".")) from None
    own = {key: each for key, each in value.items() if key != "preset"}
    merged = {key: each for key, each in preset.items() if key != "about"}
    for key, each in own.items():
        both = isinstance(each, dict) and isinstance(merged.get(key), dict)
        merged[key] = {**merged[key], **each} if both else each
    return merged
