"""What every typed piece of the YAML is built from: strict models, and pydantic's errors told in one sentence each."""

import difflib
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError, ValidationInfo


class Settings(BaseModel):
    """A strict, immutable piece of configuration: an unknown key or a value of another type is refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)

    def fingerprinted(self) -> dict[str, Any]:
        """The fields that decide what is made, as JSON values; subclasses leave out those that decide how fast."""
        return self.model_dump(mode="json")


def resolve_path(value: Any, info: ValidationInfo) -> Any:
    """Make a path of the YAML absolute: relative ones start from the YAML's own folder (`context={"base": ...}`)."""
    if not isinstance(value, str | Path):
        return value
    base = (info.context or {}).get("base", Path.cwd())
    return (Path(base) / Path(value).expanduser()).resolve()


def nearest(word: str, known: list[str]) -> str:
    """A suggestion for a mistyped word, `' (did you mean "x"?)'`, or nothing when none is near."""
    match = difflib.get_close_matches(word, known, n=1)
    return f' (did you mean "{match[0]}"?)' if match else ""


def describe_validation_error(error: ValidationError, model: type[BaseModel]) -> list[str]:
    """Each of pydantic's errors as one sentence: the key's path, the value, and what is allowed."""
    return [_describe(item, model) for item in error.errors(include_url=False)]


def _describe(item: Any, model: type[BaseModel]) -> str:
    path = ".".join(str(part) for part in item["loc"]) or "the top level"
    if item["type"] == "extra_forbidden":
        known = _fields_at(model, item["loc"][:-1])
        key = str(item["loc"][-1])
        allowed = f"; allowed: {', '.join(known)}{nearest(key, known)}" if known else ""
        return f'{path}: there is no key "{key}" here{allowed}'
    if item["type"] == "missing":
        return f"{path}: this key is required and missing"
    message = item["msg"].removeprefix("Value error, ")
    if item["type"] == "value_error":
        return f"{path}: {message}"
    return f"{path}: {item['input']!r} is wrong: {message[0].lower()}{message[1:]}"


def _fields_at(model: Any, location: tuple[Any, ...]) -> list[str]:
    """The keys allowed at a place of the configuration, or none where the place holds no model of its own."""
    for part in location:
        fields = getattr(model, "model_fields", None)
        if fields is not None:
            if part not in fields:
                return []
            model = fields[part].annotation
        # A mapping or list of models: step into its element type, whatever the key.
        arguments = getattr(model, "__args__", None)
        if arguments and not hasattr(model, "model_fields"):
            models = [a for a in arguments if hasattr(a, "model_fields")]
            model = models[-1] if models else arguments[-1]
    return list(getattr(model, "model_fields", {}))
