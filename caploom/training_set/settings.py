"""How training draws among an image's captions: the mix, as the YAML writes it."""

import math
from collections.abc import Collection, Mapping
from typing import Any, Literal, Self

from pydantic import Field, GetJsonSchemaHandler, PositiveInt, model_validator
from pydantic_core import CoreSchema

from caploom.common.json_schema import JsonSchema, with_shorthands
from caploom.common.names import RAW_SOURCE
from caploom.common.settings import Settings, nearest

_DRAWING_KEY = b"caploom.drawing"
_DEFAULT_POSITIVES = 5
_PARAMETERS = ("raw_probability", "weights", "multi_positive")
_BARE = ("uniform", "concatenate", "multi_positive")


class Drawing(Settings):
    """What training does when it draws from a row; stored in the metadata of the training set's files.

    It is there and not in the trainer's settings, so that it is part of the data version of a checkpoint's input.
    """

    texts: PositiveInt = Field(default=1, description="Captions of an image per step; fewer where it has fewer.")
    sub_caption: bool = Field(default=False, description="Take a random sentence of each drawn caption.")
    source_prefix: bool = Field(default=False, description='Put the source\'s name and ": " before the caption.')

    def metadata(self) -> dict[bytes, bytes] | None:
        """The metadata of an Arrow schema; None when training draws one whole caption, the default."""
        return None if self == Drawing() else {_DRAWING_KEY: self.model_dump_json().encode()}

    @classmethod
    def of_metadata(cls, metadata: Mapping[bytes, bytes] | None) -> Self:
        """The drawing in a schema's metadata; raises pydantic's `ValidationError` when it is damaged."""
        written = (metadata or {}).get(_DRAWING_KEY)
        return cls() if written is None else cls.model_validate_json(written)


class MixSettings(Settings):
    """A strategy by its name or with its parameter, and modifiers: `{weights: {...}, sub_caption: true}`.

    uniform: each of an image's captions is as likely as the next (LaCLIP).
    raw_probability: the raw caption with probability p, else one of the others (VeCLIP, Recap-DataComp-1B).
    weights: a weight per source, shared by its captions and normalized over the image's captions.
    multi_positive: up to k captions of an image in one step, all of them its positives (DreamLIP, 1-to-K).
    concatenate: one training row per caption (the released code's "joint training").
    """

    strategy: Literal["uniform", "raw_probability", "concatenate", "weights", "multi_positive"] = "uniform"
    raw_probability: float | None = Field(default=None, ge=0, le=1)
    weights: dict[str, float] | None = Field(default=None, description="Of `raw` and of all captioners; 0 is allowed.")
    multi_positive: PositiveInt | None = Field(
        default=None, description="Captions of an image per step, including the raw one; 5 by default."
    )
    sub_caption: bool = Field(default=False, description="Train on a random sentence of the drawn caption (DreamLIP).")
    source_prefix: bool = Field(
        default=False, description="Train on `<source>: <caption>`; texts have no prefix at evaluation."
    )

    @model_validator(mode="before")
    @classmethod
    def _read_yaml(cls, value: Any) -> Any:
        if isinstance(value, str):
            value = {"strategy": value}
        if not isinstance(value, dict):
            return value
        if "strategy" not in value:
            given = [name for name in _PARAMETERS if name in value]
            if len(given) > 1:
                raise ValueError(f"{' and '.join(given)} are two strategies: a recipe has one mix")
            value = {"strategy": given[0] if given else "uniform", **value}
        if value["strategy"] == "multi_positive" and value.get("multi_positive") is None:
            value = {**value, "multi_positive": _DEFAULT_POSITIVES}
        return value

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchema:
        """A strategy's name may stand for the mapping."""
        return with_shorthands(core_schema, handler, {"enum": list(_BARE)})

    @model_validator(mode="after")
    def _parameters_belong_to_their_strategy(self) -> Self:
        for name in _PARAMETERS:
            if (self.strategy == name) != (getattr(self, name) is not None):
                raise ValueError(f"write mix: {{{name}: ...}} for that strategy, and no {name} for the others")
        for source, weight in (self.weights or {}).items():
            if not math.isfinite(weight) or weight < 0:
                raise ValueError(f"the weight of {source} is {weight}: a weight is a number from 0 up")
        if self.weights is not None and not sum(self.weights.values()) > 0:
            raise ValueError("the weights add up to zero, so no caption could be drawn: make one of them positive")
        return self

    def check_sources(self, captioners: Collection[str]) -> None:
        """Raise `ValueError` unless the weights name `raw` and exactly the captioners of the recipe."""
        if self.weights is None:
            return
        sources = [RAW_SOURCE, *captioners]
        for source in self.weights:
            if source not in sources:
                weigh = f"weigh {', '.join(sources)}{nearest(source, sources)}"
                raise ValueError(f'weights: the recipe has no captioner "{source}"; {weigh}')
        missing = [source for source in sources if source not in self.weights]
        if missing:
            raise ValueError(f"weights: {', '.join(missing)} has no weight; write 0 for a source that is never drawn")

    @property
    def drawing(self) -> Drawing:
        """What training does when it draws from a row."""
        return Drawing(texts=self.multi_positive or 1, sub_caption=self.sub_caption, source_prefix=self.source_prefix)
