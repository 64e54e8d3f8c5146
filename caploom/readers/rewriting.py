"""Rewrites paths of another machine to local ones."""

from collections.abc import Sequence

from pydantic import ConfigDict
from typing_extensions import TypedDict

# `from` is the YAML's key, but a reserved word in Python.
RewriteRule = TypedDict("RewriteRule", {"from": str, "to": str})
RewriteRule.__pydantic_config__ = ConfigDict(extra="forbid")  # type: ignore[attr-defined]


class Rewriting:
    """Rules of (prefix, replacement); the first one that matches a path counts.

    Attributes:
        unused: the prefixes that no path had so far.
    """

    def __init__(self, rules: Sequence[tuple[str, str]]) -> None:
        self._rules = list(rules)
        self.unused = {beginning for beginning, _ in rules}

    def __call__(self, path: str) -> str:
        if self.unused:
            self.unused = {beginning for beginning in self.unused if not path.startswith(beginning)}
        for beginning, instead in self._rules:
            if path.startswith(beginning):
                return instead + path.removeprefix(beginning)
        return path
