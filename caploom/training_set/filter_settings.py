"""The filters as the YAML writes them: `no_empty`, `{min_words: 3}`, `{keep_top: 0.3, model: ..., pretrained: ...}`."""

from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, PositiveInt, ValidationInfo, model_validator

from caploom.common.json_schema import Shorthand
from caploom.common.settings import Settings, nearest, resolve_path
from caploom.training_set.scorer_identity import scorer_identity

_PATHS = ("/", "./", "../", "~")


class _Step(Settings):
    """A filter; its name is also the key of its main parameter."""

    def identity(self) -> dict[str, Any]:
        """All that decides what the filter drops, as JSON values."""
        return self.fingerprinted()


class NoEmpty(_Step):
    """Drops empty captions: no letter, digit or emoji, only whitespace, punctuation and control characters."""

    filter: Literal["no_empty"] = "no_empty"


class MinWords(_Step):
    """Drops captions with fewer words."""

    filter: Literal["min_words"] = "min_words"
    min_words: PositiveInt


class InLanguage(_Step):
    """Drops captions in other languages."""

    filter: Literal["language"] = "language"
    language: Annotated[
        Annotated[list[str], Field(min_length=1)],
        BeforeValidator(lambda value: [value] if isinstance(value, str) else value),
        Shorthand({"type": "string"}),
    ] = Field(description="One ISO 639 code, such as `en`, or a list of them.")


class MaxRepeats(_Step):
    """Drops every caption that occurs verbatim at more images than this, and so describes none of them."""

    filter: Literal["max_repeats"] = "max_repeats"
    max_repeats: PositiveInt


class NearDuplicates(_Step):
    """Keeps the first of an image's captions whose sets of words have a Jaccard index of at least this."""

    filter: Literal["near_duplicates"] = "near_duplicates"
    near_duplicates: float = Field(gt=0, le=1)


def _resolving(*endings: str) -> BeforeValidator:
    """Makes absolute what is written as a path, or ends like one."""

    def resolve(value: Any, info: ValidationInfo) -> Any:
        is_path = isinstance(value, str) and (value.startswith(_PATHS) or value.endswith(endings))
        return str(resolve_path(value, info)) if is_path else value

    return BeforeValidator(resolve)


class ScoredStep(_Step):
    """A filter by the score of an open_clip model: the cosine of an image's and a caption's embeddings."""

    model: Annotated[str, _resolving(".json")] = Field(
        description="An open_clip name, one of Caploom's own, a .json architecture, or a checkpoint's folder (`./...`)."
    )
    pretrained: Annotated[str | None, _resolving(".pt", ".pth", ".bin", ".safetensors")] = Field(
        default=None, description="An open_clip tag or a file of weights; omitted for a checkpoint's folder."
    )
    batch_size: PositiveInt = Field(default=256, description="Images, and texts, per batch.")
    device: str = Field(default="auto", description="`auto`: the GPU if there is one, else the CPU.")

    @model_validator(mode="after")
    def _weights_are_named(self) -> Self:
        is_folder = self.model.startswith("/") and not self.model.endswith(".json")
        if (self.pretrained is None) != is_folder:
            raise ValueError(
                "name the weights that score: a model with `pretrained` (an open_clip tag or a file), "
                "or a checkpoint's folder as the model, written as a path, and no `pretrained`"
            )
        return self

    def identity(self) -> dict[str, Any]:
        """As `_Step.identity`, with the model by its content."""
        given = self.model_dump(mode="json", exclude={"model", "pretrained", "batch_size", "device"})
        return {**given, "scorer": scorer_identity(self.model, self.pretrained)}


class KeepTop(ScoredStep):
    """Keeps the fraction of all captions, raw and synthetic, with the highest scores; ties at the edge all stay."""

    filter: Literal["keep_top"] = "keep_top"
    keep_top: float = Field(gt=0, lt=1)


class BestOfN(ScoredStep):
    """Keeps the n synthetic captions with the highest scores per image; raw captions stay."""

    filter: Literal["best_of_n"] = "best_of_n"
    best_of_n: PositiveInt


_STEPS: dict[str, type[_Step]] = {
    "no_empty": NoEmpty,
    "min_words": MinWords,
    "language": InLanguage,
    "max_repeats": MaxRepeats,
    "near_duplicates": NearDuplicates,
    "keep_top": KeepTop,
    "best_of_n": BestOfN,
}


def _read_yaml(value: Any) -> Any:
    if isinstance(value, str):
        value = {value: None}
    if not isinstance(value, dict) or not value or "filter" in value:
        return value
    name = next((key for key in value if key in _STEPS), next(iter(value)))
    if name not in _STEPS:
        raise ValueError(f'there is no filter "{name}"; known: {", ".join(_STEPS)}{nearest(str(name), list(_STEPS))}')
    rest = dict(value)
    if name not in _STEPS[name].model_fields and rest.pop(name) is not None:
        raise ValueError(f'the filter "{name}" takes no parameter: write it as a plain name')
    if name in rest and rest[name] is None:
        raise ValueError(f'the filter "{name}" needs its parameter: write {{{name}: ...}}')
    return {"filter": name, **rest}


FilterStep = Annotated[
    NoEmpty | MinWords | InLanguage | MaxRepeats | NearDuplicates | KeepTop | BestOfN,
    Field(discriminator="filter"),
    BeforeValidator(_read_yaml),
    Shorthand({"enum": ["no_empty"]}),
]
"""One filter of a recipe. In the YAML a bare name, or a mapping that has the filter's name as a key."""
