"""What a captioner is: model, revision, prompt, decoding and seed, as written in the factory's YAML."""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, PositiveFloat, PositiveInt, ValidationInfo, model_validator

from caploom.settings import Settings, resolve_path

DEMO_PREFIX = "demo:"
"""`demo:tiny-llava` names a captioner that ships in the package."""


def _model_location(value: Any, info: ValidationInfo) -> Any:
    """A model is a hub id, `demo:NAME`, or a folder; only a folder is a path (it starts with `.`, `/` or `~`)."""
    if isinstance(value, str) and value.startswith((".", "/", "~")):
        return str(resolve_path(value, info))
    if isinstance(value, str) and value.startswith(DEMO_PREFIX):
        folder = Path(__file__).parents[1] / "demo" / "captioners" / value.removeprefix(DEMO_PREFIX)
        known = sorted(path.name for path in folder.parent.glob("*") if path.is_dir())
        if folder.name not in known:
            raise ValueError(f'there is no demo captioner "{value}"; allowed: {DEMO_PREFIX}{{{", ".join(known)}}}')
    return value


class DecodingSettings(Settings):
    """How text is generated; the defaults are the released code's cap and greedy search."""

    max_new_tokens: PositiveInt = Field(default=30, description="Cap on new tokens, in the captioner's own tokenizer.")
    min_new_tokens: int = Field(default=0, ge=0)
    sample: bool = Field(default=False, description="Draw tokens (reproducibly, keyed by image and seed) or be greedy.")
    temperature: PositiveFloat = Field(default=1.0, description="Used only when sampling.")
    top_p: float = Field(default=1.0, gt=0, le=1, description="Nucleus; used only when sampling.")
    no_repeat_ngram_size: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _sampling_is_meant(self) -> Self:
        if not self.sample and (self.temperature != 1.0 or self.top_p != 1.0):
            raise ValueError("temperature and top_p do nothing in greedy search: set sample: true or leave them out")
        return self


class CaptionerSettings(Settings):
    """A captioner. Its fingerprint is the hash of all that decides what it says."""

    backend: Literal["transformers"] = Field(default="transformers", description="What runs the model.")
    model: Annotated[str, BeforeValidator(_model_location)] = Field(
        description="A Hugging Face hub id, a local folder (starting with `.`, `/` or `~`), or `demo:NAME`."
    )
    revision: str | None = Field(default=None, description="Commit or tag on the hub; pin it for work that matters.")
    prompt: str = Field(
        description="The raw prompt with the family's own image placeholder; with chat_template, the question alone."
    )
    chat_template: bool = Field(default=False, description="Wrap prompt and image in the model's own chat template.")
    decoding: DecodingSettings = Field(default_factory=DecodingSettings)
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        default="auto", description="`auto` keeps the dtype that the weights are stored in."
    )
    seed: int = Field(default=0, description="Seed of the sampling; the same image and seed give the same caption.")
    trust_remote_code: bool = Field(default=False, description="Run code from the model's repository; needs revision.")
    device: str = Field(default="auto", description="`auto` is the GPU when there is one, else the CPU.")
    batch_size: PositiveInt = Field(default=32, description="Images a batch.")

    @model_validator(mode="after")
    def _remote_code_is_pinned(self) -> Self:
        if self.trust_remote_code and not self.revision:
            raise ValueError("trust_remote_code: true runs the repository's code: pin its revision beside it")
        return self

    def fingerprinted(self) -> dict[str, Any]:
        """All but what only decides where and how fast it runs."""
        return self.model_dump(mode="json", exclude={"device", "batch_size"})
