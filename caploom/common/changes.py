"""Compares two configurations key by key, and shortens values so that they fit into a sentence."""

import json
from dataclasses import asdict, dataclass
from typing import Any

from caploom.common.text import printable

_LONGEST = 60  # characters of a value in a sentence
_SETS = ("captioners", "evaluation_sets", "waiting")
"""Lists of names, whose changes are described as additions and removals."""


@dataclass(frozen=True)
class Change:
    """One key that differs: its dotted path, and the value before and after (None where it is absent)."""

    key: str
    before: Any
    after: Any

    @property
    def text(self) -> str:
        """In words: `trainer.steps changed from 240 to 300`."""
        if self.key.split(".")[-1] in _SETS and isinstance(self.before, list) and isinstance(self.after, list):
            return _names_changed(self.key.split(".")[-1], self.before, self.after)
        return f"{self.key} changed from {shown(self.before)} to {shown(self.after)}"

    def to_dict(self) -> dict[str, Any]:
        """As JSON values, unshortened."""
        return {**asdict(self), "text": self.text}


def changes(before: Any, after: Any, key: str = "") -> list[Change]:
    """The differences between two JSON values: mappings key by key, anything else as a whole."""
    if isinstance(before, dict) and isinstance(after, dict):
        found = []
        for name in dict.fromkeys([*before, *after]):
            path = f"{key}.{name}" if key else str(name)
            found += changes(before.get(name), after.get(name), path)
        return found
    return [] if before == after else [Change(key, before, after)]


def shown(value: Any) -> str:
    """A value in a sentence: text in quotes, rules by their names, nothing longer than a line."""
    if isinstance(value, str):
        return f'"{cut(value)}"'
    if isinstance(value, list):
        steps = [_step(each) for each in value]
        if value and all(step is not None for step in steps):
            return cut(f"[{', '.join(str(step) for step in steps)}]", 2 * _LONGEST)
    return "nothing" if value is None else cut(json.dumps(value, ensure_ascii=False))


def cut(text: str, longest: int = _LONGEST) -> str:
    """Printable text, cut to at most `length` characters."""
    text = printable(text)
    return text if len(text) <= longest else f"{text[: longest - 1]}…"


def _step(value: Any) -> str | None:
    """A rule of a shear as the YAML has it."""
    if not isinstance(value, dict) or set(value) != {"rule", "parameters"}:
        return None
    parameters = ", ".join(f"{name}: {given}" for name, given in value["parameters"].items())
    return f"{value['rule']} {{{parameters}}}" if parameters else str(value["rule"])


def _names_changed(key: str, before: list[Any], after: list[Any]) -> str:
    what = {"captioners": "captioner", "evaluation_sets": "evaluation set"}.get(key, key)
    parts = [
        f"{what} {printable(', '.join(map(str, names)))} {verb}"
        for names, verb in (
            ([name for name in after if name not in before], "added"),
            ([name for name in before if name not in after], "removed"),
        )
        if names
    ]
    return ", ".join(parts) or f"the order of {key} changed from {shown(before)} to {shown(after)}"
