"""The JSON Schema of a factory's YAML, for editors and for tools that check one without Caploom.

`python -m caploom.config.factory_schema caploom/config/factory.schema.json` writes the file that ships in the package.
"""

import json
import sys
from pathlib import Path
from typing import Any

from caploom.config.factory_config import FactoryConfig

SCHEMA_ID = "urn:caploom:factory"

SCHEMA_FILE = Path(__file__).with_name("factory.schema.json")


def factory_schema() -> dict[str, Any]:
    """The schema (JSON Schema 2020-12) that every factory's YAML satisfies, shorthands included.

    What it cannot say, `caploom check` does: whether names are known, and whether values go together.
    """
    schema = FactoryConfig.model_json_schema()
    _close_mappings(schema)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": SCHEMA_ID,
        **schema,
        "title": "A Caploom factory",
    }


def schema_text() -> str:
    """The file's content."""
    return json.dumps(factory_schema(), indent=2, ensure_ascii=False) + "\n"


def _close_mappings(schema: Any) -> None:
    """Refuse keys that are no names: pydantic says only which ones are."""
    if isinstance(schema, dict):
        if "patternProperties" in schema:
            schema["additionalProperties"] = False
        for each in schema.values():
            _close_mappings(each)
    elif isinstance(schema, list):
        for each in schema:
            _close_mappings(each)


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(schema_text(), encoding="utf-8")
