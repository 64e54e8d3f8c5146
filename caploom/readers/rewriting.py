"""Paths of another machine, rewritten to where the images lie here."""

from collections.abc import Sequence

from pydantic import ConfigDict
from typing_extensions import TypedDict

# `from` is a word of the YAML and none that Python lets a field be called.
RewriteRule = TypedDict("RewriteRule", {"from": str, "to": str})
RewriteRule.__pydantic_config__ = ConfigDict(extra="forbid")  # type: ignore[attr-defined]


class Rewriting:
    """Rules of (beginning, what stands there instead); the first one that begins a path counts.

    Attributes:
        unused: the beginnings that no path had so far.
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


def rewriting_of(rules: Sequence[RewriteRule]) -> Rewriting:
    """The rewriting that a YAML's rules ask for."""
    return Rewriting([(rule["from"], rule["to"]) for rule in rules])
