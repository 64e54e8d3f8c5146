"""How CLIP is trained: the trainer's part of the factory's YAML."""

from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, PositiveFloat, PositiveInt, ValidationInfo, model_validator

from caploom.settings import Settings, resolve_path


def _resolve_file(model: Any, info: ValidationInfo) -> Any:
    """A file's path is relative to the YAML's folder, like every path there; a name stays a name."""
    return str(resolve_path(model, info)) if isinstance(model, str) and model.endswith(".json") else model


class TrainerSettings(Settings):
    """A CLIP trainer. Every recipe that names it trains for the same number of steps: no recipe costs more."""

    model: Annotated[str, BeforeValidator(_resolve_file)] = Field(
        description="An open_clip architecture name, one of Caploom's own (`picture-book`), or a .json file's path."
    )
    steps: PositiveInt = Field(description="Optimizer steps; samples seen = steps x batch_size.")
    batch_size: PositiveInt = Field(default=256, description="Pairs a step.")
    learning_rate: PositiveFloat = 1e-3
    weight_decay: float = Field(default=0.1, ge=0)
    warmup_steps: int = Field(default=0, ge=0, description="Linear warm-up, then cosine decay to zero.")
    grad_clip_norm: PositiveFloat | None = 1.0
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    device: str = Field(default="auto", description="`auto` is the GPU when there is one, else the CPU.")
    workers: int = Field(default=0, ge=0, description="Processes that decode images; 0 decodes in the trainer.")
    image_cache_mb: int = Field(
        default=1024, ge=0, description="Memory for decoded, resized images kept between epochs; 0 keeps none."
    )

    @model_validator(mode="after")
    def _warm_up_ends(self) -> Self:
        if self.warmup_steps >= self.steps:
            raise ValueError(f"warmup_steps ({self.warmup_steps}) must be below steps ({self.steps})")
        return self

    def fingerprinted(self) -> dict[str, object]:
        """All but what only decides where and how fast it runs."""
        return self.model_dump(mode="json", exclude={"device", "workers", "image_cache_mb"})
