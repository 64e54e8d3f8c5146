"""The base of every typed part of the YAML: strict models, and pydantic's errors as one sentence each."""

import difflib
import logging
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, ClassVar, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo

from caploom.common.names import NAME_PATTERN

Name = Annotated[str, Field(pattern=NAME_PATTERN)]
"""A name that a person gives in the YAML."""


class Settings(BaseModel):
    """A strict, immutable part of the configuration: unknown keys and values of another type are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)

    not_fingerprinted: ClassVar[frozenset[str]] = frozenset()
    """Fields that only decide where, how fast and how persistently it runs."""

    def fingerprinted(self) -> dict[str, Any]:
        """The fields that decide what is made, as JSON values."""
        return self.model_dump(mode="json", exclude=set(self.not_fingerprinted))


def resolve_path(value: Any, info: ValidationInfo) -> Any:
    """Make a path of the YAML absolute: relative ones start from the YAML's own folder (`context={"base": ...}`)."""
    if not isinstance(value, str | Path):
        return value
    base = (info.context or {}).get("base", Path.cwd())
    return (Path(base) / Path(value).expanduser()).resolve()


def nearest(word: str, known: list[str]) -> str:
    """A suggestion for a mistyped word, `' (did you mean "x"?)'`, or nothing when no known word is close."""
    match = difflib.get_close_matches(word, known, n=1)
    return f' (did you mean "{match[0]}"?)' if match else ""


def current_name(what: str, name: str, old_names: Mapping[str, str]) -> str:
    """The present name of something that may have been renamed; an old name warns, once per process."""
    if name in old_names:
        _warn_renamed(what, name, old_names[name])
    return old_names.get(name, name)


@cache
def _warn_renamed(what: str, old: str, new: str) -> None:
    logging.getLogger(__name__).warning('The %s "%s" is deprecated: write "%s", its new name.', what, old, new)


def check_known(where: str, name: str, known: Sequence[str], what: str) -> None:
    """Raise `ValueError` unless `name`, found at the key `where`, is one of the known ones."""
    if name not in known:
        allowed = ", ".join(known) or "none is defined"
        raise ValueError(f'{where}: there is no {what} "{name}"; allowed: {allowed}{nearest(name, list(known))}')


def describe_validation_error(error: ValidationError, model: type[BaseModel]) -> list[str]:
    """Each of pydantic's errors as one sentence: the key's path, the value, and what is allowed."""
    return [_describe(item, model) for item in error.errors(include_url=False)]


def _describe(item: Any, model: type[BaseModel]) -> str:
    keys, fields = _walk(model, item["loc"])
    path = ".".join(keys) or "the top level"
    if item["type"] == "extra_forbidden":
        allowed = f"; allowed: {', '.join(fields)}{nearest(keys[-1], fields)}" if fields else ""
        return f'{path}: there is no key "{keys[-1]}" here{allowed}'
    if item["type"] == "union_tag_invalid":
        key, tag, known = (str(item["ctx"][name]).strip("'") for name in ("discriminator", "tag", "expected_tags"))
        allowed = known.replace("'", "")
        return f'{path}.{key}: there is no {key} "{tag}"; allowed: {allowed}{nearest(tag, allowed.split(", "))}'
    if item["type"] == "missing":
        return f"{path}: this key is required and missing"
    message = item["msg"].removeprefix("Value error, ")
    if item["type"] == "value_error":
        return f"{path}: {message}" if keys else message  # a validator of the whole YAML names the key itself
    return f"{path}: {item['input']!r} is wrong: {message[0].lower()}{message[1:]}"


def _walk(model: type[BaseModel], location: tuple[Any, ...]) -> tuple[list[str], list[str]]:
    """A location's keys as the YAML has them, and the fields of the model that contains the last one.

    Pydantic also puts the chosen model's name of a union into the location; the YAML has no such key.
    """
    keys: list[str] = []
    fields: list[str] = []
    annotation: Any = model
    for part in location:
        annotation = _unwrapped(annotation)
        chosen = [arg for arg in get_args(annotation) if isinstance(arg, type) and part in _tags(arg)]
        if chosen:
            annotation = chosen[0]
            continue
        keys.append(str(part))
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            fields = list(annotation.model_fields)
            annotation = annotation.model_fields[part].annotation if part in annotation.model_fields else None
        else:
            fields = []
            annotation = get_args(annotation)[-1] if get_args(annotation) else None  # the values of a mapping or a list
    return keys, fields


def _unwrapped(annotation: Any) -> Any:
    """The type without `Annotated`, and without the None of an optional key."""
    if get_origin(annotation) is Annotated:
        return _unwrapped(get_args(annotation)[0])
    present = [arg for arg in get_args(annotation) if arg is not NoneType]
    return _unwrapped(present[0]) if NoneType in get_args(annotation) and len(present) == 1 else annotation


def _tags(model: type) -> list[str]:
    """The values of a model's literal fields, one of which is the union's discriminator."""
    if not issubclass(model, BaseModel):
        return []
    return [value for field in model.model_fields.values() for value in get_args(field.annotation)]
