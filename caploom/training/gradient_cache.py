"""Gradient caching (Gao et al., 2021): the step of a large contrastive batch, with the activations of a small one.

All features are computed without a graph; the loss gives their gradients; then each part is recomputed, with the same
random numbers, and propagates its features' gradients back into the networks.
"""

from collections.abc import Callable, Sequence

import torch

from caploom.training.objective import StepContext

Part = tuple[torch.Tensor, torch.Tensor]
Features = tuple[torch.Tensor, ...]


def backward_in_parts(
    parts: Sequence[Part],
    encode: Callable[[Part], Features],
    encode_again: Callable[[Part], Features],
    loss_of: Callable[[list[Features]], torch.Tensor],
    context: StepContext,
) -> torch.Tensor:
    """Leave the gradients of `loss_of` all parts' features in the parameters; the loss, detached.

    `encode` and `encode_again` turn a part into its features (the same each time); the second one's gradients are
    averaged with those of other processes, in the last part's backward pass alone.
    """
    device = context.processes.device
    random_states, features = [], []
    with torch.no_grad():
        for part in parts:
            random_states.append(_random_state(device))
            features.append(encode(part))
    after = _random_state(device)
    leaves = [tuple(each.detach().requires_grad_() for each in of_part) for of_part in features]
    loss = loss_of(leaves)
    context.scaler.scale(loss).backward()
    for number, (part, random_state) in enumerate(zip(parts, random_states, strict=True)):
        _set_random_state(random_state, device)
        if number + 1 < len(parts):
            with context.without_sync():
                _backward(encode_again(part), leaves[number])
        else:
            _backward(encode_again(part), leaves[number])
    _set_random_state(after, device)
    return loss.detach()


def _backward(features: Features, leaves: Features) -> None:
    torch.autograd.backward(features, [torch.zeros_like(leaf) if leaf.grad is None else leaf.grad for leaf in leaves])


def _random_state(device: torch.device) -> tuple[torch.Tensor, torch.Tensor | None]:
    return torch.get_rng_state(), torch.cuda.get_rng_state(device) if device.type == "cuda" else None


def _set_random_state(state: tuple[torch.Tensor, torch.Tensor | None], device: torch.device) -> None:
    torch.set_rng_state(state[0])
    if state[1] is not None:
        torch.cuda.set_rng_state(state[1], device)
