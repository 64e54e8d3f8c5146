"""The interface of what a trainer trains: networks and the loss of a batch."""

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
    """What an objective gets from the loop for one step.

    Attributes:
        step: counted from 0.
        steps: number of all steps.
        module: the objective's module, wrapped by `Processes.wrapped`.
        processes: the processes of the training.
        scaler: `scale(loss).backward()`; it has no effect outside fp16.
        half: the type that the networks compute in, None for float32.
        micro_batch: images whose activations may be in memory at once; None for all of this process's part.
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
        """Backward passes in the block do not synchronize gradients with other processes."""
        return self.module.no_sync() if isinstance(self.module, DistributedDataParallel) else nullcontext()


class Objective(Protocol):
    """Networks with a loss.

    Attributes:
        module: all trained parameters; training calls its `forward`, so that gradients are averaged over processes.
        decoder: makes the networks' input images.
        tokenize: a list of N texts -> int64 (N, length).
        memory_format: the fastest one for the module's image weights.
        notes: notes for people on how it trains, one sentence each.
    """

    module: torch.nn.Module
    decoder: ImageDecoder
    tokenize: Tokenize
    memory_format: torch.memory_format
    notes: list[str]

    def backward(self, batch: Batch, context: StepContext) -> Mapping[str, torch.Tensor]:
        """Accumulate the gradients of the global batch's loss in the parameters.

        Returns detached scalars, `loss` among them, the same in every process.
        """
        ...

    def after_step(self, context: StepContext) -> None:
        """Called after an optimizer's step: clamps a scale, moves momentum encoders, fills a queue."""
        ...

    def state(self) -> dict[str, torch.Tensor]:
        """Tensors that a resumed training needs in addition to the module's."""
        ...

    def load_state(self, state: Mapping[str, torch.Tensor]) -> None:
        """Restore what `state` returned."""
        ...

    def save(self, folder: Path) -> None:
        """Write the module into an existing folder, in the form that evaluation loads."""
        ...
