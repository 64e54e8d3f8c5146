"""The manifest of an artifact: what it was made from and how, and whether all its rows are accounted for."""

import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

import caploom
from caploom.errors import StoreError

MANIFEST = "manifest.json"
MANIFEST_VERSION = 1


class RowCount(BaseModel):
    """The identity of a stage: `rows_in` = `rows_out` + `rows_failed`, each failure with its reason."""

    model_config = ConfigDict(extra="forbid")

    rows_in: int = Field(description="Rows that came in.")
    rows_out: int = Field(description="Rows that went out.")
    rows_failed: int = Field(description="Rows that failed, each with its reason.")
    unit: str = Field(description='What a row is: "rows of the source", "images", "captions", ...')
    reasons: dict[str, int] = Field(default_factory=dict, description="Failed rows by reason.")

    @property
    def holds(self) -> bool:
        """Whether nothing was lost, doubled or invented."""
        return self.rows_in == self.rows_out + self.rows_failed == self.rows_out + sum(self.reasons.values())


class InputRecord(BaseModel):
    """An artifact that another was made from."""

    model_config = ConfigDict(extra="forbid")

    address: str = Field(description="The input's address.")
    data_version: str = Field(description="The input's data version when it was read.")

    @property
    def kind(self) -> str:
        """The input's kind."""
        return self.address.partition("/")[0]


class FileRecord(BaseModel):
    """A file of an artifact."""

    model_config = ConfigDict(extra="forbid")

    sha256: str = Field(description="Hexadecimal SHA-256 of the file's bytes.")
    size: int = Field(description="Bytes.")


class Manifest(BaseModel):
    """How an artifact was made: enough to rebuild it."""

    model_config = ConfigDict(extra="forbid")

    manifest_version: int = Field(default=MANIFEST_VERSION, description="Of this schema.")
    kind: str = Field(description="What it is: captions, training_set, checkpoint, ...")
    address: str = Field(description="Folder below the store's root, `/` between its parts.")
    fingerprint: str = Field(description="Hash of the configuration, code version and inputs.")
    data_version: str = Field(description="Hash of what was written: equal results have equal data versions.")
    code_version: str = Field(description="Version of the stage's own code, raised when its results change.")
    configuration: dict[str, Any] = Field(description="What the stage was configured as.")
    inputs: list[InputRecord] = Field(default_factory=list, description="The artifacts that it was made from.")
    seeds: dict[str, int] = Field(default_factory=dict, description="Seeds by what they were for.")
    rows: RowCount | None = Field(default=None, description="What became of the rows that came in.")
    summary: dict[str, Any] = Field(default_factory=dict, description="The stage's own figures.")
    files: dict[str, FileRecord] = Field(default_factory=dict, description="By their paths below the folder.")
    caploom_version: str = Field(default=caploom.__version__, description="The Caploom that made it.")
    packages: dict[str, str] = Field(default_factory=dict, description="Versions of packages that decide results.")
    device: str = Field(default="cpu", description="Where it was computed: cpu, cuda, ...")
    run_id: str | None = Field(default=None, description="The Dagster run, when one made it.")
    started: str = Field(description="When its making began: ISO 8601 with the zone.")
    seconds: float = Field(description="How long it took.")


def parse_manifest(text: bytes, path: Path | str) -> Manifest:
    """The manifest in a file (`path`, for the message); raises `StoreError` when it is damaged or newer."""
    try:
        manifest = Manifest.model_validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where, why = ".".join(str(part) for part in first["loc"]) or "its text", first["msg"]
    else:
        if manifest.manifest_version == MANIFEST_VERSION:
            return manifest
        where, why = "manifest_version", f"it is {manifest.manifest_version}"
    newer = _newer_version(text)
    if newer is not None:
        raise StoreError(
            f"{path}: it is a manifest of version {newer}, made by a newer Caploom (this one, {caploom.__version__}, "
            f"knows version {MANIFEST_VERSION}); update Caploom to read it."
        )
    raise StoreError(
        f"{path}: it is not a manifest of version {MANIFEST_VERSION} ({where}: {why}); "
        f"delete the folder and rebuild the artifact."
    )


def _newer_version(text: bytes) -> int | None:
    try:
        version = json.loads(text)["manifest_version"]
    except (ValueError, KeyError, TypeError):
        return None
    return version if isinstance(version, int) and version > MANIFEST_VERSION else None
