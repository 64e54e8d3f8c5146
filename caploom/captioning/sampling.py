"""Sampling that does not depend on the batch: the Gumbel-max trick with noise keyed by the image."""

import hashlib
from collections.abc import Sequence

import torch
from transformers import LogitsProcessor, TemperatureLogitsWarper, TopPLogitsWarper


class GumbelSampler(LogitsProcessor):  # type: ignore[misc]
    """Adds Gumbel noise to the warped logits, so that arg-max draws exactly from their softmax.

    Each row has its own generator, seeded by (image, seed) and advanced one draw per step: the same image gets the same
    text alone, in a batch, and after a resumed run. Source: Gumbel-max (Gumbel 1954; Maddison et al. 2014).
    """

    def __init__(self, image_ids: Sequence[str], seed: int, temperature: float, top_p: float) -> None:
        self._generators = [torch.Generator().manual_seed(_seed(image_id, seed)) for image_id in image_ids]
        self._warpers: list[LogitsProcessor] = [TemperatureLogitsWarper(float(temperature))]
        if top_p < 1:
            self._warpers.append(TopPLogitsWarper(top_p))

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Shape in and out: (batch, vocabulary)."""
        warped = scores.float()
        for warper in self._warpers:
            warped = warper(input_ids, warped)
        uniform = torch.stack([torch.rand(scores.shape[1], generator=generator) for generator in self._generators])
        noise = -torch.log(-torch.log(uniform.clamp(1e-10, 1 - 1e-7)))
        return warped + noise.to(scores.device)


def _seed(image_id: str, seed: int) -> int:
    return int.from_bytes(hashlib.sha256(f"{image_id}\n{seed}".encode()).digest()[:7], "little")
