"""Where the GPU hours are spent: in the run's own process, or on a Ray cluster."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, NonNegativeFloat, PositiveFloat, PositiveInt

from caploom.common.json_schema import Shorthand
from caploom.common.settings import Settings


class LocalExecutor(Settings):
    """Runs in the run's own process, on the GPUs of its machine."""

    kind: Literal["local"] = "local"


class RayExecutor(Settings):
    """Runs on a Ray cluster: tasks decode, and each worker holds one copy of the captioner."""

    kind: Literal["ray"]
    address: str | None = Field(
        default=None,
        description="`host:6379`, `ray://host:10001`, or `auto` on a machine of the cluster; by default a cluster of "
        "this machine alone, which ends with the run.",
    )
    workers: PositiveInt = Field(default=1, description="Processes that hold the captioner, each with its own copy.")
    gpus_per_worker: NonNegativeFloat = Field(
        default=1.0, description="Per worker; a fraction such as 0.5 shares a GPU, 0 captions on CPUs."
    )
    cpus_per_worker: PositiveFloat = Field(default=1.0, description="Per worker, in addition to its GPUs.")
    decoders: PositiveInt = Field(default=4, description="Tasks that read and decode images at once, one CPU each.")


def _with_kind(value: Any) -> Any:
    return {"kind": value} if isinstance(value, str) else value


Executor = Annotated[
    LocalExecutor | RayExecutor,
    Field(discriminator="kind"),
    BeforeValidator(_with_kind),
    Shorthand({"enum": ["local", "ray"]}),
]
"""The YAML's `executor`: `ray`, or a mapping. No result depends on it."""
