"""The manifest's published JSON schema.

`python -m caploom.storage.manifest_schema docs/manifest.schema.json` writes it.
"""

import json
import sys
from pathlib import Path
from typing import Any

from caploom.storage.manifest import MANIFEST_VERSION, Manifest

_DEFAULTS_OF_THE_WRITER = ("caploom_version", "manifest_version")


def manifest_schema() -> dict[str, Any]:
    """The schema (JSON Schema 2020-12) that every `manifest.json` of this version satisfies."""
    schema = Manifest.model_json_schema(mode="serialization")
    for name in _DEFAULTS_OF_THE_WRITER:  # they describe this release, but the schema is independent of releases
        schema["properties"][name].pop("default", None)
    schema["properties"]["manifest_version"]["const"] = MANIFEST_VERSION
    schema["required"] = ["manifest_version", *schema["required"]]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:caploom:manifest:{MANIFEST_VERSION}",
        **schema,
        "title": "Caploom's manifest",
        "description": (
            "manifest.json next to an artifact's files: how it was made, enough to rebuild it. It is written last; "
            "a folder without one is unfinished."
        ),
    }


def schema_text() -> str:
    """The file's content."""
    return json.dumps(manifest_schema(), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(schema_text(), encoding="utf-8")
