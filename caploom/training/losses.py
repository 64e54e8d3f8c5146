"""Contrastive losses of a batch, with one or several texts per image."""

import torch
from torch.nn import functional


def clip_loss(images: torch.Tensor, texts: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """CLIP's symmetric cross-entropy (Radford et al., 2021) of L2-normalized images and texts (N, d); a scalar.

    Example:
        >>> features = torch.eye(4)
        >>> round(clip_loss(features, features, scale=torch.tensor(100.0)).item(), 3)
        0.0
    """
    logits = scale * images @ texts.T
    labels = torch.arange(len(images), device=images.device)
    return (functional.cross_entropy(logits, labels) + functional.cross_entropy(logits.T, labels)) / 2


def multi_positive_loss(
    images: torch.Tensor, texts: torch.Tensor, scale: torch.Tensor, owners: torch.Tensor
) -> torch.Tensor:
    """Symmetric contrastive loss in which all of an image's texts are its positives (DreamLIP, 1-to-K); a scalar.

    `images` (N, d) and `texts` (T, d) are L2-normalized, `owners` (T,) int64 are the texts' images. Image to text:
    each positive against all texts of other images; its sibling texts are ignored. Text to image: each text against all
    images. A text counts 1 / (texts of its image), so that every image counts the same. With one text per image, this
    is CLIP's loss.
    """
    count = len(images)
    logits = scale * images @ texts.T
    share = _shares(owners, count) / count
    to_image = functional.cross_entropy(logits.T, owners, reduction="none")
    # The smallest number and not minus infinity, whose logsumexp has no gradient where a batch is a single image.
    others = logits.masked_fill(_own(owners, count), torch.finfo(logits.dtype).min).logsumexp(dim=1)
    positives = logits[owners, torch.arange(len(texts), device=owners.device)]
    to_text = functional.softplus(others[owners] - positives, threshold=50)
    loss: torch.Tensor = ((to_image + to_text) * share).sum() / 2
    return loss


def siglip_loss(
    images: torch.Tensor, texts: torch.Tensor, scale: torch.Tensor, bias: torch.Tensor, owners: torch.Tensor
) -> torch.Tensor:
    """SigLIP's loss (Zhai et al., 2023): each pair is classified separately as matching or not; a scalar.

    Arguments as in `multi_positive_loss`. The sum over all pairs is divided by the number of images; a text counts
    1 / (texts of its image).
    """
    count = len(images)
    signs = torch.where(_own(owners, count), 1.0, -1.0)
    logits = scale * images @ texts.T + bias
    return -(functional.logsigmoid(signs * logits) * _shares(owners, count)).sum() / count


def _own(owners: torch.Tensor, count: int) -> torch.Tensor:
    """bool (images, texts): which texts belong to which image."""
    return owners[None, :] == torch.arange(count, device=owners.device)[:, None]


def _shares(owners: torch.Tensor, count: int) -> torch.Tensor:
    """1 / (texts of its image) for each text."""
    return 1 / torch.bincount(owners, minlength=count)[owners]
