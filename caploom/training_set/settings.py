"""How training draws among an image's captions: the mix, as the YAML writes it."""

from typing import Any, Literal

from pydantic import Field, model_validator

from caploom.settings import Settings


class MixSettings(Settings):
    """`uniform`, `concatenate`, or `{raw_probability: 0.8}`.

    uniform: each of an image's captions is as likely as the next (LaCLIP).
    raw_probability: the raw caption with probability p, else one of the others (VeCLIP, Recap-DataComp-1B).
    concatenate: one training row a caption (the released code's "joint training").
    """

    strategy: Literal["uniform", "raw_probability", "concatenate"] = "uniform"
    raw_probability: float | None = Field(default=None, ge=0, le=1)

    @model_validator(mode="before")
    @classmethod
    def _read_yaml(cls, value: Any) -> Any:
        if isinstance(value, str):
            return {"strategy": value}
        if isinstance(value, dict) and set(value) == {"raw_probability"}:
            return {"strategy": "raw_probability", **value}
        return value

    @model_validator(mode="after")
    def _probability_belongs_to_its_strategy(self) -> "MixSettings":
        if (self.strategy == "raw_probability") != (self.raw_probability is not None):
            raise ValueError("write mix: {raw_probability: p} for that strategy, and no p for the others")
        return self
