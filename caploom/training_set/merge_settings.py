"""How a merge is done: the YAML's `merge`."""

from pathlib import Path
from typing import Annotated

from pydantic import BeforeValidator, Field, NonNegativeFloat

from caploom.common.settings import Settings, resolve_path


class MergeSettings(Settings):
    """How much a merge holds in memory, where the rest waits, and what a cluster does. Nothing made depends on it."""

    memory_gb: float = Field(
        default=1.0,
        ge=0.1,
        description="Captions that a process which merges holds, in all its copies (10^9 bytes); what it loads and the "
        "file that it writes come to about 0.4 more.",
    )
    spill: Annotated[Path | None, BeforeValidator(resolve_path)] = Field(
        default=None, description="Folder where rows wait; by default beside the training set that is being made."
    )
    ray_above_gb: NonNegativeFloat = Field(
        default=5.0,
        description="With `executor: ray`, the cluster merges what reads more than so many GB of tables, as they lie "
        "in the store; smaller merges end here before a cluster has begun.",
    )

    @property
    def memory_bytes(self) -> int:
        """The bound in bytes."""
        return int(self.memory_gb * 1e9)
