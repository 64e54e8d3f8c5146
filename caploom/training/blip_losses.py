"""BLIP's losses (Li et al., 2022): contrastive with soft labels, matching with hard negatives, captioning."""

import torch
from torch.nn import functional

LABEL_SMOOTHING = 0.1
"""Label smoothing of the captioning loss, as in the original."""


def contrastive_targets(owners: torch.Tensor, images: int, candidates: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The right candidates: for images (images, candidate texts) and for texts (texts, candidate images).

    `owners` (texts,) says which image a text belongs to. An image's row is divided among its texts; candidates beyond
    the batch (a queue's) are never right. Rows sum to 1.
    """
    texts = len(owners)
    to_texts = torch.zeros(images, max(candidates, texts), device=owners.device)
    to_texts[owners, torch.arange(texts, device=owners.device)] = 1.0
    to_images = torch.zeros(texts, max(candidates, images), device=owners.device)
    to_images[torch.arange(texts, device=owners.device), owners] = 1.0
    return to_texts / to_texts.sum(dim=1, keepdim=True), to_images


def soft_cross_entropy(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Cross-entropy with rows of target probabilities, averaged over rows; a scalar."""
    return -(functional.log_softmax(logits, dim=1) * targets).sum(dim=1).mean()


def softened(targets: torch.Tensor, momentum_logits: torch.Tensor, weight: float) -> torch.Tensor:
    """Targets mixed with the momentum model's own view (ALBEF, Li et al., 2021): rows still sum to 1."""
    return (1 - weight) * targets + weight * functional.softmax(momentum_logits, dim=1)


def hard_negatives(similarity: torch.Tensor, allowed: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """For each row an allowed column, drawn from the softmax of the similarities: int64 (rows,), on the CPU.

    Each row must allow at least one column.
    """
    weights = functional.softmax(similarity.detach().float().cpu(), dim=1)
    # A small probability for all allowed ones: otherwise, if all underflowed, there would be nothing to draw from.
    weights = (weights + 1e-6) * allowed.cpu()
    return torch.multinomial(weights, 1, generator=generator)[:, 0]


def captioning_loss(logits: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """Next-token cross-entropy with label smoothing over all tokens that are not padding (id 0); a scalar.

    `logits` (N, length, vocabulary) and `tokens` (N, length) are aligned.
    """
    return functional.cross_entropy(
        logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten(), ignore_index=0, label_smoothing=LABEL_SMOOTHING
    )
