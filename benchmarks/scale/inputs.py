"""A store with as many artifacts as a large factory has, of which each shard's tables are those of the first.

Plans, fingerprints and manifests are the library's; a shard has few images, and its tables are hard links, so that the
number of shards is what is measured. Nothing is fsynced.
"""

import json
import os
from pathlib import Path

from benchmarks.lineage.inputs import write_inputs
from caploom.storage.manifest import InputRecord, Manifest
from caploom.storage.store import Plan

IMAGES = 10  # of a shard
PER_SHARD = 10  # artifacts: its listing, its pairs, captions and sheared captions of four captioners
_KINDS = ("shards", "raw_pairs", "captions", "sheared")


def write_store(folder: Path, shards: int) -> None:
    """A factory of so many shards below `folder`: `factory.yaml` and `store`."""
    folder.mkdir(parents=True)
    write_inputs(folder, 4 * IMAGES)
    store = folder / "store"
    first = [path for kind in _KINDS for path in sorted((store / kind).rglob("manifest.json"))]
    first = [path for path in first if "shard-00000" in path.parts]
    templates = [(path.parent, Manifest.model_validate_json(path.read_bytes())) for path in first]
    assert len(templates) == PER_SHARD
    for number in range(4, shards):
        _copy(store, templates, f"shard-{number:05d}")


def _copy(store: Path, templates: list[tuple[Path, Manifest]], shard: str) -> None:
    made: dict[str, InputRecord] = {}
    for folder, template in templates:
        configuration = json.loads(json.dumps(template.configuration).replace("shard-00000", shard))
        kind, *name, _ = template.address.replace("shard-00000", shard).split("/")
        inputs = tuple(made[each.address] for each in template.inputs)
        if kind == "shards":
            configuration["rows"] = shard  # other rows than the first one's
        plan = Plan(
            kind=kind, name=tuple(name), code_version=template.code_version, configuration=configuration, inputs=inputs
        )
        target = store / plan.address
        target.mkdir(parents=True)
        for file in template.files:
            os.link(folder / file, target / file)
        fields = {
            "address": plan.address,
            "fingerprint": plan.fingerprint,
            "configuration": configuration,
            "inputs": list(inputs),
        }
        manifest = template.model_copy(update=fields)
        (target / "manifest.json").write_text(manifest.model_dump_json(indent=2), encoding="utf-8")
        made[template.address] = InputRecord(address=plan.address, data_version=template.data_version)
