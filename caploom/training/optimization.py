"""The optimizer and its schedule: AdamW, warm-up and cosine, gradient clipping, weight averaging."""

import math
from typing import TypeAlias

import torch
from torch.optim.swa_utils import AveragedModel

from caploom.training.settings import TrainingSettings

_EPSILON = 1e-6

_Tensors: TypeAlias = tuple[torch.Tensor, ...] | list[torch.Tensor]


def adamw(module: torch.nn.Module, settings: TrainingSettings) -> torch.optim.AdamW:
    """AdamW over the module's trainable parameters; those of fewer than two dimensions are not decayed."""
    parameters = trainable(module)
    # Gains, biases and the logit scale have fewer than two dimensions; decaying them does not help.
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": settings.weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    # Fused: one pass over weights, gradients and moments, three times as fast on a CPU.
    return torch.optim.AdamW(groups, lr=settings.learning_rate, betas=settings.betas, eps=_EPSILON, fused=True)


def trainable(module: torch.nn.Module) -> list[torch.nn.Parameter]:
    """The trainable parameters."""
    return [parameter for parameter in module.parameters() if parameter.requires_grad]


def learning_rate(step: int, settings: TrainingSettings) -> float:
    """The rate of a step (counted from 0): linear warm-up, then cosine decay to zero or the peak to the end."""
    if step < settings.warmup_steps:
        return settings.learning_rate * (step + 1) / settings.warmup_steps
    if settings.schedule == "constant":
        return settings.learning_rate
    done = (step - settings.warmup_steps) / max(1, settings.steps - settings.warmup_steps)
    return settings.learning_rate * 0.5 * (1 + math.cos(math.pi * done))


def moving_average(module: torch.nn.Module, decay: float) -> AveragedModel:
    """An exponential moving average of the module's weights; `update_parameters(module)` after each step moves it.

    After n updates the decay is at most (1 + n) / (10 + n), so that the untrained weights are soon forgotten.
    """

    @torch.no_grad()
    def move(averages: _Tensors, weights: _Tensors, averaged: torch.Tensor | int) -> None:
        count = int(averaged)
        share = 1 - min(decay, (1 + count) / (10 + count))
        torch._foreach_lerp_(averages, weights, share)

    return AveragedModel(module, multi_avg_fn=move)
