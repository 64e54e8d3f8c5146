"""What a YAML may say instead of a model's own fields, in the model's JSON Schema too, by which editors check it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import GetJsonSchemaHandler, TypeAdapter
from pydantic_core import CoreSchema

JsonSchema = dict[str, Any]


@dataclass(frozen=True)
class Shorthand:
    """In an annotation, what the YAML may say beside the type itself: a JSON Schema, or another type.

    `Annotated[list[str], BeforeValidator(...), Shorthand({"type": "string"})]` is one text, or a list of them.
    """

    schema: JsonSchema | None = None
    of: Any = None

    def __get_pydantic_json_schema__(self, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchema:
        """The type's own schema, or the shorthand's."""
        own = handler(core_schema)
        other = handler(TypeAdapter(self.of).core_schema) if self.schema is None else self.schema
        return {"anyOf": [*own["anyOf"], other]} if set(own) == {"anyOf"} else {"anyOf": [own, other]}


def with_shorthands(core_schema: CoreSchema, handler: GetJsonSchemaHandler, *others: JsonSchema) -> JsonSchema:
    """A model's schema that admits other forms too, for its `__get_pydantic_json_schema__`."""
    given = handler(core_schema)
    own = handler.resolve_ref_schema(given)
    fields = dict(own)
    own.clear()
    own.update({key: fields.pop(key) for key in ("title", "description") if key in fields})
    own["anyOf"] = [fields, *others]
    return given


def closed_object(properties: Mapping[str, JsonSchema], required: list[str]) -> JsonSchema:
    """The schema of a mapping with these keys, and no others."""
    return {
        "type": "object",
        "properties": dict(properties),
        "required": required,
        "additionalProperties": False,
    }
