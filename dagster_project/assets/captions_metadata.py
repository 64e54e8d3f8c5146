"""What a person looks at after a captioner has been through a shard."""

from typing import Any

from caploom.factory import Factory
from caploom.lineage.exhibits import shard_exhibits
from caploom.store import Artifact
from dagster_project.assets.materialization import gallery


def captions_metadata(factory: Factory, captioner: str, artifact: Artifact) -> dict[str, Any]:
    """Lengths, openings, words shared with the others, and a gallery."""
    shard = artifact.manifest.configuration["shard"]
    return {"gallery": gallery(shard_exhibits(factory, shard, list(factory.config.captioners)))}
