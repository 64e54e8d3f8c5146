"""The manifest's published schema."""

import json
from pathlib import Path

import jsonschema
import pytest

from caploom.storage.manifest import MANIFEST
from caploom.storage.manifest_schema import manifest_schema, schema_text

PUBLISHED = Path(__file__).parents[2] / "docs" / "manifest.schema.json"


def test_the_published_schema_is_up_to_date():
    command = "python -m caploom.storage.manifest_schema docs/manifest.schema.json"
    assert PUBLISHED.read_text(encoding="utf-8") == schema_text(), f"write it again: {command}"
    jsonschema.Draft202012Validator.check_schema(manifest_schema())


def test_every_field_is_described():
    schema = manifest_schema()
    for model in (schema, *schema["$defs"].values()):
        assert model["description"]
        assert [name for name, field in model["properties"].items() if not field.get("description")] == []


def test_the_manifests_of_a_whole_factory_satisfy_it(asked):
    validator = jsonschema.Draft202012Validator(json.loads(PUBLISHED.read_text(encoding="utf-8")))
    manifests = list(asked.store.root.rglob(MANIFEST))
    assert {path.relative_to(asked.store.root).parts[0] for path in manifests} >= {"captions", "retrieval_metrics"}
    for path in manifests:
        validator.validate(json.loads(path.read_text(encoding="utf-8")))


@pytest.mark.parametrize(
    "change", [{"manifest_version": 2}, {"surprise": 1}, {"files": {"a": {"sha256": "0"}}}, {"seconds": "long"}]
)
def test_what_is_no_manifest_of_this_version_does_not_satisfy_it(asked, change):
    path = next(asked.store.root.rglob(MANIFEST))
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(json.loads(path.read_text(encoding="utf-8")) | change, manifest_schema())
