"""The YAML's `freshness`: how old a stage's newest result may be before that is a warning or a fault."""

import re
from datetime import timedelta
from typing import Annotated, Self

from pydantic import BeforeValidator, Field, GetJsonSchemaHandler, WithJsonSchema, model_validator
from pydantic_core import CoreSchema

from caploom.common.json_schema import JsonSchema, with_shorthands
from caploom.common.settings import Settings

_UNITS = {"m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_LEAST = timedelta(minutes=1)


def _duration(value: object) -> object:
    if isinstance(value, timedelta):
        return value
    match = re.fullmatch(r"\s*(\d{1,5})\s*([mhdw])\s*", value) if isinstance(value, str) else None
    if match is None:
        raise ValueError(f"{value!r} is not a span of time: write a number and m, h, d or w, such as 12h or 7d")
    span = timedelta(seconds=int(match[1]) * _UNITS[match[2]])
    if span < _LEAST:
        raise ValueError(f"{value!r} is too short: write at least a minute")
    return span


_SPAN: JsonSchema = {"type": "string", "pattern": r"^\s*\d{1,5}\s*[mhdw]\s*$"}

Duration = Annotated[timedelta, BeforeValidator(_duration), WithJsonSchema(_SPAN)]


class Window(Settings):
    """Two spans since the newest of a stage's results: after the first it is a warning, after the second a fault."""

    warn: Duration | None = Field(default=None, description="A shorter span than `fail`; by default, no warning.")
    fail: Duration = Field(description="Such as 12h, 7d or 2w.")

    @model_validator(mode="before")
    @classmethod
    def _one_span_fails(cls, value: object) -> object:
        return {"fail": value} if isinstance(value, str) else value

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchema:
        """One span may stand for the mapping."""
        return with_shorthands(core_schema, handler, _SPAN)

    @model_validator(mode="after")
    def _first_the_warning(self) -> Self:
        if self.warn is not None and self.warn >= self.fail:
            raise ValueError(f"warn: {self.warn} is not before fail, {self.fail}")
        return self


class FreshnessSettings(Settings):
    """Spans by stage; a stage that is not named has no limit."""

    raw_pairs: Window | None = Field(default=None, description="A span such as 1d, or `{warn: 1d, fail: 2d}`.")
    captions: Window | None = Field(default=None, description="For each captioner.")
    sheared: Window | None = Field(default=None, description="For each captioner's sheared tables.")
    sheared_captions: Window | None = Field(default=None, description="For the newest recipe.")
    training_set: Window | None = Field(default=None, description="Likewise.")
    checkpoint: Window | None = Field(default=None, description="Likewise.")
    retrieval_metrics: Window | None = Field(default=None, description="Likewise.")
    ablation_report: Window | None = Field(default=None, description="For the report.")
