"""The YAML's `merge`: how training sets are merged."""

from pathlib import Path
from typing import Annotated

from pydantic import BeforeValidator, Field, NonNegativeFloat

from caploom.common.settings import Settings, resolve_path


class MergeSettings(Settings):
    """A merge's memory, disk space and use of a cluster. No result depends on it."""

    memory_gb: float = Field(
        default=1.0,
        ge=0.1,
        description="Captions in a merging process's memory, with all copies (10^9 bytes); what it loads and the file "
        "that it writes take about 0.4 more.",
    )
    spill: Annotated[Path | None, BeforeValidator(resolve_path)] = Field(
        default=None, description="Folder for rows on disk; by default next to the training set that is being made."
    )
    ray_above_gb: NonNegativeFloat = Field(
        default=5.0,
        description="With `executor: ray`, the cluster merges sets that read more than this many GB of tables, as "
        "stored; smaller merges finish here before a cluster has started.",
    )

    @property
    def memory_bytes(self) -> int:
        """The limit in bytes."""
        return int(self.memory_gb * 1e9)
