"""The definition of a shear rule: a function of one text, perhaps a faster form for a column, and what it needs."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from pydantic import TypeAdapter, ValidationError

from caploom.errors import ConfigError
from caploom.shearing.spans import Spans

Span = tuple[int, int]
"""(start, end) in characters."""

CountTokens = Callable[[str], int]


@dataclass(frozen=True)
class Row:
    """What some rules know about a caption in addition to its text. None was not looked up."""

    image_id: str = ""
    captioner: str = ""
    raw_words: int | None = None
    corpus_words: Mapping[str, int] = field(default_factory=dict)
    count_tokens: CountTokens | None = None


@dataclass(frozen=True)
class Context:
    """The same for a column of one captioner's captions: `image_ids` and `raw_words` have one entry per caption.

    `raw_words` is the longest raw caption of the caption's image, in words; `corpus_words` the raw captions' length, in
    words, by the statistic that `match_corpus` names; `count_tokens` counts in the captioner's own tokenizer.
    """

    image_ids: Sequence[str] = ()
    captioner: str = ""
    raw_words: np.ndarray | None = None
    corpus_words: Mapping[str, int] = field(default_factory=dict)
    count_tokens: CountTokens | None = None

    def row(self, number: int) -> Row:
        """What is known about one caption."""
        return Row(
            self.image_ids[number] if self.image_ids else "",
            self.captioner,
            int(self.raw_words[number]) if self.raw_words is not None else None,
            self.corpus_words,
            self.count_tokens,
        )

    def slice(self, start: int, end: int) -> "Context":
        """The context of the captions from `start` to before `end`."""
        raw = self.raw_words[start:end] if self.raw_words is not None else None
        return Context(self.image_ids[start:end], self.captioner, raw, self.corpus_words, self.count_tokens)


@dataclass(frozen=True)
class Rule:
    """A registered rule.

    `function(text, **parameters)` gives the span that is kept; a rule that must know more than the text takes the
    keyword `row`, and names in `needs` what it uses. `main_parameter` is the one that `{rule: value}` in the YAML sets.
    `column(spans, context, **parameters)` is the same for many texts at once. `settled(text, **parameters)` says, for
    the beginning of a text, that any continuation gives the same result (None: never). `grows` says that the result
    for a beginning is a prefix of the result for a longer text. `caps` says that it cuts at a length. `added` are
    parameters that came after stores had been made: where they have their defaults, they are not recorded.
    """

    function: Callable[..., Span]
    main_parameter: str = ""
    column: Callable[..., Spans] | None = None
    settled: Callable[..., bool] | None = None
    grows: bool = False
    caps: bool = False
    needs: frozenset[str] = frozenset()
    added: frozenset[str] = frozenset()

    @property
    def takes_row(self) -> bool:
        """Whether it must know more than the text."""
        return "row" in inspect.signature(self.function).parameters

    def recorded(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """The parameters as fingerprints and stores have them."""
        defaults = inspect.signature(self.function).parameters
        unset = {name for name in self.added if parameters.get(name) == defaults[name].default}
        return {name: value for name, value in parameters.items() if name not in unset}

    def call(self, text: str, parameters: Mapping[str, Any], row: Row) -> Span:
        """The span of one text."""
        return self.function(text, **parameters, row=row) if self.takes_row else self.function(text, **parameters)

    def apply(self, spans: Spans, parameters: Mapping[str, Any], context: Context) -> Spans:
        """The spans of many texts, each within the span kept so far."""
        if self.column is not None:
            return self.column(spans, context, **parameters)
        if self.takes_row:
            return spans.by_row(lambda text, row: self.function(text, **parameters, row=context.row(row)))
        return spans.by_row(lambda text, row: self.function(text, **parameters))


def known(value: Any, rule: str, what: str) -> Any:
    """A value of a row; raises `ConfigError` where the rule is used without it."""
    if value is None:
        raise ConfigError(f"The shear rule {rule} needs {what}, which is not known here: use it in a recipe's shear.")
    return value


def bind_parameters(name: str, rule: Rule, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """The rule's parameters, checked against its signature and with defaults filled in; raises `ValueError`."""
    kinds = inspect.signature(rule.function).parameters.values()
    known = {one.name: one for one in kinds if one.name != "text" and one.kind is not one.KEYWORD_ONLY}
    for key in parameters:
        if key not in known:
            raise ValueError(f'the rule "{name}" has no parameter "{key}"; it takes: {", ".join(known) or "none"}')
    bound = {}
    for key, parameter in known.items():
        if key not in parameters and parameter.default is inspect.Parameter.empty:
            raise ValueError(f'the rule "{name}" needs {key}, as in {{{name}: 30}}')
        value = parameters.get(key, parameter.default)
        try:
            bound[key] = TypeAdapter(parameter.annotation).validate_python(value, strict=True)
        except ValidationError as error:
            wrong = "; ".join(dict.fromkeys(each["msg"][0].lower() + each["msg"][1:] for each in error.errors()))
            raise ValueError(f'{key} of the rule "{name}" is {value!r}: {wrong}') from None
    return bound
