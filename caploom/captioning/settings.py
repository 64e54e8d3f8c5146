"""A captioner's settings in the factory's YAML: a model in this process, an endpoint, or existing captions."""

import re
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self, get_args

from pydantic import (
    BeforeValidator,
    Field,
    GetJsonSchemaHandler,
    PositiveFloat,
    PositiveInt,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic.json_schema import SkipJsonSchema
from pydantic_core import CoreSchema

from caploom.captioning.presets import expand_preset, presets
from caploom.captioning.stopping import can_settle
from caploom.common.json_schema import JsonSchema, Shorthand
from caploom.common.settings import Settings, resolve_path
from caploom.shearing.settings import ShearStep

DEMO_PREFIX = "demo:"
"""`demo:tiny-llava` names a captioner that ships in the package."""

RAW_CAPTION = "{raw_caption}"
"""In a prompt, stands for the image's own raw caption."""


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
    """How text is generated; the defaults are the released code's cap and greedy decoding."""

    max_new_tokens: PositiveInt = Field(default=30, description="Cap on new tokens, in the captioner's own tokenizer.")
    min_new_tokens: int = Field(default=0, ge=0)
    sample: bool = Field(default=False, description="Draw tokens (reproducibly, keyed by image and seed) or be greedy.")
    temperature: PositiveFloat = Field(default=1.0, description="Used only when sampling.")
    top_p: float = Field(default=1.0, gt=0, le=1, description="Nucleus; used only when sampling.")
    no_repeat_ngram_size: int = Field(default=0, ge=0)
    repetition_penalty: PositiveFloat = Field(default=1.0, description="Above 1, repeated words become unlikely.")
    length_penalty: float = Field(default=1.0, description="For beam search; without beams it has no effect.")
    num_beams: PositiveInt = Field(default=1, description="Beams of a beam search; 1 is greedy decoding or sampling.")
    stop_strings: list[str] = Field(
        default_factory=list, description="A text ends before the first of these, for example `###` for MiniGPT-4."
    )
    stop_at: Literal["end", "shear"] = Field(
        default="end",
        description="`shear` stops a text as soon as nothing more of it can survive the shears of all recipes that use "
        "this captioner (less to generate; the ledger then has no more than that); `end` lets it end.",
    )

    @model_validator(mode="after")
    def _sampling_is_meant(self) -> Self:
        if not self.sample and (self.temperature != 1.0 or self.top_p != 1.0):
            raise ValueError("temperature and top_p need sampling: set sample: true or leave them out")
        if self.sample and self.num_beams > 1:
            raise ValueError("sample: true and num_beams above 1 exclude each other: leave one out")
        if self.num_beams > 1 and (self.stop_at == "shear" or self.stop_strings):
            raise ValueError("a beam search cannot stop single rows: leave out stop_at and stop_strings, or num_beams")
        if any(not text for text in self.stop_strings):
            raise ValueError("stop_strings contains an empty string, which every text contains: leave it out")
        return self


class CaptionerSettings(Settings):
    """The settings that all captioners have. A captioner's fingerprint is the hash of all that decides its texts."""

    backend: str
    max_attempts: PositiveInt = Field(
        default=3, description="Maximum number of attempts per image, including `caploom retry`."
    )

    @property
    def label(self) -> str:
        """The captioner's name for people: the model's id, or the file."""
        raise NotImplementedError

    @property
    def kind(self) -> str:
        """The backend, as a tag for people."""
        return self.backend

    @property
    def needs_raw_caption(self) -> bool:
        """Whether its texts depend on the image's raw caption."""
        return False

    @property
    def on_gpu(self) -> bool:
        """Whether it takes a slot of the GPU pool."""
        return False


class PromptedSettings(CaptionerSettings):
    """A model that is shown an image with a prompt."""

    model: Annotated[str, BeforeValidator(_model_location)] = Field(
        description="A Hugging Face hub id, a local folder (starting with `.`, `/` or `~`), or `demo:NAME`."
    )
    prompt: str = Field(
        description="The raw prompt with the family's own image placeholder; with chat_template, only the question. "
        "`{raw_caption}` in it stands for the image's raw caption."
    )
    decoding: DecodingSettings = Field(default_factory=DecodingSettings)
    seed: int = Field(default=0, description="Seed of the sampling; the same image and seed give the same caption.")
    stops: SkipJsonSchema[tuple[tuple[ShearStep, ...], ...]] = Field(
        default=(), exclude=True, repr=False, description="Filled in by the factory for `decoding.stop_at: shear`."
    )

    @model_validator(mode="after")
    def _stops_are_the_factory_s(self, info: ValidationInfo) -> Self:
        if "stops" in self.model_fields_set:
            raise ValueError("stops is filled in by the factory: write decoding.stop_at: shear instead")
        return self

    @property
    def label(self) -> str:
        """The model's id or folder."""
        return self.model

    @property
    def needs_raw_caption(self) -> bool:
        """Whether the prompt quotes the raw caption."""
        return RAW_CAPTION in self.prompt

    def stopping_at(self, shears: list[list[ShearStep]]) -> Self:
        """These settings with the shears that decide when a text may stop; none, if one needs the whole text."""
        stops = tuple(tuple(steps) for steps in shears) if can_settle(shears) else ()
        return self.model_copy(update={"stops": stops})

    def fingerprinted(self) -> dict[str, Any]:
        """The shears' needs count for the fingerprint, and not the setting `stop_at: shear`."""
        identity = super().fingerprinted()
        identity["decoding"].pop("stop_at")
        if self.stops:
            identity["stops"] = [[step.model_dump(mode="json") for step in steps] for steps in self.stops]
        return identity


class TransformersCaptioner(PromptedSettings):
    """A model of transformers, in this process."""

    not_fingerprinted: ClassVar[frozenset[str]] = frozenset(
        {"max_attempts", "device", "device_map", "memory_gb", "batch_size", "prefetch", "attention"}
    )
    backend: Literal["transformers"] = "transformers"
    revision: str | None = Field(default=None, description="Commit or tag on the hub; pin it for work that matters.")
    chat_template: bool = Field(default=False, description="Wrap prompt and image in the model's own chat template.")
    processor: dict[str, Any] = Field(
        default_factory=dict,
        description="Options of the model's processor, such as `max_pixels` or `do_image_splitting`.",
    )
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        default="auto", description="`auto` keeps the dtype that the weights are stored in."
    )
    quantization: Literal["none", "8bit", "4bit"] = Field(
        default="none", description="Weights in 8 or 4 bits with bitsandbytes, for GPUs too small for the full model."
    )
    attention: Literal["auto", "sdpa", "eager", "flash_attention_2"] = Field(
        default="auto", description="`auto` is SDPA where the model has it."
    )
    trust_remote_code: bool = Field(default=False, description="Run code from the model's repository; needs revision.")
    device: str | list[str] = Field(
        default="auto",
        description="`auto`: every GPU of this machine, with a worker each, else the CPU; or one device, or a list.",
    )
    device_map: Literal["none", "auto", "balanced", "sequential"] = Field(
        default="none", description="Spread one model that no single GPU can hold over all of them (accelerate)."
    )
    memory_gb: PositiveFloat | None = Field(
        default=None, description="GPU memory in GB that weights and a batch need; checked before the model is loaded."
    )
    batch_size: PositiveInt = Field(default=32, description="Images per batch; halved when memory runs out.")
    prefetch: int = Field(default=2, ge=0, description="Batches that are decoded and resized ahead of the generation.")

    @model_validator(mode="after")
    def _options_agree(self) -> Self:
        if self.trust_remote_code and not self.revision and not self.model.startswith("/"):
            raise ValueError("trust_remote_code: true runs the repository's code: pin its revision too")
        if self.device == []:
            raise ValueError("device is an empty list: name at least one device, or write auto")
        if self.device_map != "none" and self.device != "auto":
            raise ValueError("device_map spreads the model over all GPUs: leave device out")
        return self

    @property
    def on_gpu(self) -> bool:
        """It uses the GPU, when there is one."""
        return True


class EndpointCaptioner(PromptedSettings):
    """A model behind an OpenAI-compatible server: vLLM, SGLang, Ollama, `transformers serve`, or a paid one."""

    not_fingerprinted: ClassVar[frozenset[str]] = frozenset(
        {"max_attempts", "url", "api_key_env", "concurrency", "timeout", "retries"}
    )
    backend: Literal["openai"]
    model: str = Field(description="The model's name as the server knows it.")
    url: Annotated[
        list[str],
        BeforeValidator(lambda value: [value] if isinstance(value, str) else value),
        Shorthand({"type": "string"}),
    ] = Field(
        description="Base of the API, such as `http://127.0.0.1:8000/v1`; or a list, of servers with the same model."
    )
    api_key_env: str | None = Field(
        default=None, description="Name of the environment variable with the key, which itself is written nowhere."
    )
    system_prompt: str | None = Field(default=None)
    concurrency: PositiveInt = Field(default=32, description="Requests in flight.")
    timeout: PositiveFloat = Field(default=120.0, description="Seconds after which a request is abandoned and retried.")
    retries: int = Field(default=5, ge=0, description="Retries after 429, 5xx and timeouts, with growing pauses.")
    image_side: PositiveInt = Field(default=1024, description="Larger images are scaled down to it; in pixels.")
    image_format: Literal["jpeg", "png"] = Field(default="jpeg", description="JPEG (quality 95) or PNG.")
    extra_body: dict[str, Any] = Field(
        default_factory=dict,
        description="Additional fields of the request, such as vLLM's `repetition_penalty`; null removes a default.",
    )

    @field_validator("url")
    @classmethod
    def _are_addresses_without_a_password(cls, value: list[str]) -> list[str]:
        # The value is not quoted: what should not be in the YAML should not be in a log either.
        for url in value:
            if not re.fullmatch(r"https?://[^@\s/]+(/\S*)?", url):
                raise ValueError(
                    "it must be an http(s) address such as http://127.0.0.1:8000/v1, without user or password (a key "
                    "goes into the environment variable that api_key_env names)"
                )
        if not value or len(set(value)) < len(value):
            raise ValueError("a list of addresses must have at least one, and no duplicates")
        return value

    @model_validator(mode="after")
    def _protocol_has_a_field_for_it(self) -> Self:
        for name in ("min_new_tokens", "no_repeat_ngram_size", "repetition_penalty", "length_penalty", "num_beams"):
            if getattr(self.decoding, name) != DecodingSettings.model_fields[name].default:
                raise ValueError(
                    f"decoding.{name} has no field in OpenAI's protocol: leave it out and use the server's own name "
                    "for it in extra_body, such as vLLM's `repetition_penalty: 1.2`"
                )
        for name in ("messages", "model", "n", "stream"):
            if name in self.extra_body:
                raise ValueError(f"extra_body.{name}: this field is filled in by the backend, leave it out")
        return self


class ImportedCaptions(CaptionerSettings):
    """Existing captions: the released code's JSON, one file per captioner."""

    not_fingerprinted: ClassVar[frozenset[str]] = frozenset({"max_attempts", "root"})
    backend: Literal["import"]
    captions: Annotated[Path, BeforeValidator(resolve_path)] = Field(
        description="`.json` (`[{image, caption}, ...]`), `.csv` or `.tsv`."
    )
    root: Annotated[Path, BeforeValidator(resolve_path)] = Field(
        description="Folder that the file's image paths start from, once rewritten."
    )
    rewrite: dict[str, str] = Field(
        default_factory=dict,
        description="Prefixes of paths in the file and their replacements, as `{/data/cc3m/: ''}`; the longest wins.",
    )
    image_key: str = Field(default="image", description="Key or column of the image's path.")
    caption_key: str = Field(default="caption", description="Key or column of the caption.")

    @property
    def label(self) -> str:
        """The file's name."""
        return self.captions.name


def _with_backend(value: Any) -> Any:
    """A captioner's mapping with its preset filled in; one that names no backend is a model in this process."""
    if not isinstance(value, dict):
        return value
    return {"backend": "transformers", **expand_preset(value)}


class _OrPreset:
    """In the JSON Schema, a captioner may also name a preset, and then needs only the keys that this one lacks."""

    def __get_pydantic_json_schema__(self, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchema:
        own = handler(core_schema)
        of_presets = []
        for settings in (TransformersCaptioner, EndpointCaptioner):
            backend = _backend_of(settings)
            fields = handler.resolve_ref_schema(handler(settings.__pydantic_core_schema__))
            for lacking, names in _presets_by_what_they_lack(settings).items():
                preset = {"enum": names, "description": "A ready-made captioner; keys beside it replace its own."}
                properties = {"preset": preset, **fields["properties"], "backend": {"const": backend}}
                of_presets.append({**fields, "properties": properties, "required": ["preset", *lacking]})
        return {"anyOf": [own, *of_presets]}


def _backend_of(settings: type[CaptionerSettings]) -> str:
    (backend,) = get_args(settings.model_fields["backend"].annotation)
    return str(backend)


def _presets_by_what_they_lack(settings: type[CaptionerSettings]) -> dict[tuple[str, ...], list[str]]:
    """The presets of a backend, by the keys that the YAML must add to them."""
    found: dict[tuple[str, ...], list[str]] = {}
    for name, preset in presets().items():
        given = {"backend": "transformers", **preset}
        if given["backend"] == _backend_of(settings):
            required = (key for key, field in settings.model_fields.items() if field.is_required())
            found.setdefault(tuple(key for key in required if key not in given), []).append(name)
    return found


Captioner = Annotated[
    TransformersCaptioner | EndpointCaptioner | ImportedCaptions,
    Field(discriminator="backend"),
    BeforeValidator(_with_backend),
    _OrPreset(),
]
"""One captioner of the YAML. A new backend is one settings class here and one line in `backend.BACKENDS`."""
