"""The processes of one training: this one's rank, and their communication."""

import os
from dataclasses import dataclass
from typing import Any, Self

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from caploom.training.clip_model import resolve_device


@dataclass(frozen=True)
class Processes:
    """This process among those of `accelerate launch`; when it is alone, its methods do not communicate.

    Attributes:
        rank: from 0; the first one writes.
        count: of all processes.
        device: of this one.
    """

    rank: int
    count: int
    device: torch.device

    @classmethod
    def current(cls, device: str) -> Self:
        """As set in the environment by `accelerate launch`. Raises `TrainingError` for an unusable device."""
        resolved = resolve_device(device)
        if int(os.environ.get("WORLD_SIZE", "1")) == 1:
            return cls(0, 1, resolved)
        from accelerate import PartialState

        state = PartialState(cpu=resolved.type == "cpu")
        return cls(state.process_index, state.num_processes, torch.device(state.device))

    @property
    def first(self) -> bool:
        """Whether this is the process that writes and reports."""
        return self.rank == 0

    def wrapped(self, module: torch.nn.Module) -> torch.nn.Module:
        """The module, with gradients averaged over the processes in each backward pass."""
        if self.count == 1:
            return module
        devices = [self.device] if self.device.type == "cuda" else None
        # Buffers are a batch normalization's running statistics: each process has its own, and the first's are used.
        return DistributedDataParallel(module, device_ids=devices, broadcast_buffers=False)

    def gather(self, tensor: torch.Tensor) -> torch.Tensor:
        """The tensors of all processes, concatenated along dimension 0, where their lengths may differ.

        Gradients flow back to every process: each gets the sum of all processes' gradients for its part.
        """
        if self.count == 1:
            return tensor
        gathered: torch.Tensor = _Gather.apply(tensor, self.lengths(len(tensor)), self.rank)
        return gathered

    def lengths(self, length: int) -> list[int]:
        """One number from each process, in the order of their ranks."""
        if self.count == 1:
            return [length]
        mine = torch.tensor([length], device=self.device)
        all_of_them = [torch.empty_like(mine) for _ in range(self.count)]
        dist.all_gather(all_of_them, mine)
        return [int(each) for each in all_of_them]

    def gather_bytes(self, data: bytes) -> list[bytes]:
        """Bytes from each process, in the order of their ranks."""
        if self.count == 1:
            return [data]
        mine = torch.frombuffer(bytearray(data or b"\0"), dtype=torch.uint8).to(self.device)
        lengths = self.lengths(len(data))
        together = self.gather(mine).cpu().numpy().tobytes()
        starts = [sum(max(1, each) for each in lengths[:rank]) for rank in range(self.count)]
        return [together[start : start + length] for start, length in zip(starts, lengths, strict=True)]

    def barrier(self) -> None:
        """Wait for the other processes."""
        if self.count > 1:
            dist.barrier()


class _Gather(torch.autograd.Function):
    """Concatenates the processes' tensors; backward sums over them and takes this process's part."""

    @staticmethod
    def forward(ctx: Any, tensor: torch.Tensor, lengths: list[int], rank: int) -> torch.Tensor:
        longest = max(lengths)
        padded = tensor.new_zeros(longest, *tensor.shape[1:])
        padded[: len(tensor)] = tensor
        parts = [torch.empty_like(padded) for _ in lengths]
        dist.all_gather(parts, padded)
        ctx.start, ctx.length = sum(lengths[:rank]), len(tensor)
        return torch.cat([part[:length] for part, length in zip(parts, lengths, strict=True)])

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        gradient = gradients[0].contiguous()
        dist.all_reduce(gradient)
        return gradient[ctx.start : ctx.start + ctx.length], None, None
