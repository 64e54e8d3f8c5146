"""What a trainer trains: networks and the loss of a batch. The loop around it knows no more than this."""

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch.nn.parallel import DistributedDataParallel

from caploom.training.batches import Batch
from caploom.training.clip_model import Tokenize
from caploom.training.images import ImageDecoder
from caploom.training.processes import Processes


@dataclass(frozen=True)
class StepContext:
    """What the loop lends an objective for one step.

    Attributes:
        step: counted from 0.
        steps: all of them.
        module: the objective's module, as `Processes.wrapped` gives it.
        processes: who else trains.
        scaler: `scale(loss).backward()`; it does nothing outside fp16.
        half: the type that the networks compute in, None for float32.
        micro_batch: images whose activations may be held at once; None for all of this process's part.
    """

    step: int
    steps: int
    module: torch.nn.Module
    processes: Processes
    scaler: torch.amp.GradScaler
    half: torch.dtype | None = None
    micro_batch: int | None = None

    def autocast(self) -> AbstractContextManager[None]:
        """The trainer's precision."""
        device = self.processes.device.type
        return torch.autocast(device, self.half) if self.half is not None else nullcontext()

    def without_sync(self) -> AbstractContextManager[None]:
        """Backward passes within leave the other processes' gradients alone."""
        return self.module.no_sync() if isinstance(self.module, DistributedDataParallel) else nullcontext()


class Objective(Protocol):
    """Networks with a loss.

    Attributes:
        module: all that is trained; its `forward` is what training calls, so that gradients meet those of others.
        decoder: makes the images that the networks take.
        tokenize: a list of N texts -> int64 (N, length).
        memory_format: in which the module's weights of images run fastest.
        notes: what a person should know of how it trains, a sentence each.
    """

    module: torch.nn.Module
    decoder: ImageDecoder
    tokenize: Tokenize
    memory_format: torch.memory_format
    notes: list[str]

    def backward(self, batch: Batch, context: StepContext) -> Mapping[str, torch.Tensor]:
        """Leave the gradients of the global batch's loss in the parameters.

        Gives detached scalars, `loss` among them, the same in every process.
        """
        ...

    def after_step(self, context: StepContext) -> None:
        """What follows an optimizer's step: clamping a scale, moving momentum encoders, filling a queue."""
        ...

    def state(self) -> dict[str, torch.Tensor]:
        """Tensors besides the module's that a resumed training needs."""
        ...

    def load_state(self, state: Mapping[str, torch.Tensor]) -> None:
        """Take back what `state` gave."""
        ...

    def save(self, folder: Path) -> None:
        """Write the module as it is into an existing folder, in the form that evaluation loads."""
        ...
