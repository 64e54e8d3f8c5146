"""How models are trained: the trainers of the factory's YAML."""

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    BeforeValidator,
    Field,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    ValidationInfo,
    model_validator,
)

from caploom.common.settings import Settings, resolve_path


def _resolve_file(model: Any, info: ValidationInfo) -> Any:
    """A file's path is relative to the YAML's folder, like every path there; a name stays a name."""
    is_path = isinstance(model, str) and (model.endswith((".json", ".safetensors", ".pt", ".bin")) or "./" in model)
    return str(resolve_path(model, info)) if is_path or (isinstance(model, str) and model.startswith("/")) else model


NameOrFile = Annotated[str, BeforeValidator(_resolve_file)]


class TrainingSettings(Settings):
    """The settings of every trainer. All recipes of a trainer train for the same number of steps, at the same cost."""

    not_fingerprinted: ClassVar[frozenset[str]] = frozenset(
        "device processes nodes workers image_cache_mb resized_cache micro_batch gradient_checkpointing "
        "save_every".split()
    )
    steps: PositiveInt = Field(description="Optimizer steps; samples seen = steps x batch_size.")
    batch_size: PositiveInt = Field(default=256, description="Images per step, over all processes.")
    micro_batch: PositiveInt | None = Field(
        default=None,
        description="Images whose activations a process holds at once: fewer need less memory; the step is the same.",
    )
    learning_rate: PositiveFloat = 1e-3
    schedule: Literal["cosine", "constant"] = Field(
        default="cosine", description="Learning rate after the linear warm-up."
    )
    warmup_steps: int = Field(default=0, ge=0, description="Steps of the linear warm-up.")
    weight_decay: NonNegativeFloat = 0.1
    betas: tuple[float, float] = Field(default=(0.9, 0.98), description="AdamW's.")
    grad_clip_norm: PositiveFloat | None = 1.0
    ema_decay: float | None = Field(
        default=None, gt=0, lt=1, description="Also keep an exponential moving average of the weights, and write that."
    )
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    gradient_checkpointing: bool = Field(default=False, description="Recompute activations instead of keeping them.")
    max_failed_share: float = Field(
        default=0.1,
        ge=0,
        le=1,
        description="Maximum fraction of unusable rows; more end the training.",
    )
    save_every: PositiveInt | None = Field(
        default=1000, description="Steps between checkpoints to resume from; null writes none."
    )
    device: str = Field(default="auto", description="`auto`: the GPU if there is one, else the CPU.")
    processes: PositiveInt = Field(
        default=1, description="Processes of `accelerate launch`, one per device, over all nodes."
    )
    nodes: PositiveInt = Field(
        default=1, description="Machines of the executor over which the processes are spread evenly."
    )
    workers: int = Field(default=0, ge=0, description="Image-decoding processes per training process; 0: none.")
    image_cache_mb: int = Field(
        default=1024, ge=0, description="Memory for decoded, resized images that are kept between epochs; 0 keeps none."
    )
    resized_cache: bool = Field(
        default=False, description="Keep resized images on disk in the store: 3 x height x width bytes each."
    )

    @model_validator(mode="after")
    def _warm_up_ends(self) -> Self:
        if self.warmup_steps >= self.steps:
            raise ValueError(f"warmup_steps ({self.warmup_steps}) must be below steps ({self.steps})")
        return self

    @model_validator(mode="after")
    def _processes_share_the_batch(self) -> Self:
        if self.batch_size % self.processes:
            raise ValueError(f"batch_size ({self.batch_size}) must be a multiple of processes ({self.processes})")
        if self.processes % self.nodes:
            raise ValueError(f"processes ({self.processes}) must be a multiple of nodes ({self.nodes})")
        return self


class ClipTrainerSettings(TrainingSettings):
    """A trainer of CLIP models of open_clip."""

    kind: Literal["clip"] = "clip"
    model: NameOrFile = Field(
        description="An open_clip architecture name, one of Caploom's own (`picture-book`), or a .json file's path."
    )
    pretrained: NameOrFile | None = Field(
        default=None,
        description="Weights to start from: a tag of open_clip, a file, a checkpoint folder, or `hf-hub:owner/name`.",
    )
    loss: Literal["clip", "siglip"] = Field(
        default="clip", description="Softmax over the batch (CLIP) or a sigmoid per pair (SigLIP)."
    )


class BlipTrainerSettings(TrainingSettings):
    """A trainer of BLIP: contrastive, matching and captioning losses together (Li et al., 2022)."""

    kind: Literal["blip"]
    model: NameOrFile = Field(
        description="A BLIP of transformers: a folder, a hub name, or one of Caploom's own (`blip-picture-book`)."
    )
    revision: str | None = Field(default=None, description="Commit of a hub model.")
    pretrained: bool = Field(default=True, description="Whether to start from the weights of `model` or from none.")
    queue_size: int = Field(
        default=0, ge=0, description="Momentum features kept as additional negatives; 0 keeps none."
    )
    momentum: float = Field(default=0.995, gt=0, lt=1, description="Decay of the momentum encoders.")
    soft_labels: float = Field(
        default=0.0, ge=0, lt=1, description="Weight of the momentum model's own similarities in the targets (ALBEF)."
    )


def _with_kind(value: Any) -> Any:
    return {"kind": "clip", **value} if isinstance(value, dict) else value


TrainerSettings = Annotated[
    ClipTrainerSettings | BlipTrainerSettings, Field(discriminator="kind"), BeforeValidator(_with_kind)
]
"""One trainer of the YAML."""
