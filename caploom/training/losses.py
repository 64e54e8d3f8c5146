"""The contrastive loss where an image has several texts in a step."""

import torch
from torch.nn import functional


def multi_positive_loss(
    images: torch.Tensor, texts: torch.Tensor, scale: torch.Tensor, owners: torch.Tensor
) -> torch.Tensor:
    """Symmetric contrastive loss in which all of an image's texts are its positives (DreamLIP, 1-to-K); a scalar.

    `images` (N, d) and `texts` (T, d) are L2-normalized, `owners` (T,) int64 says of which image each text is. Image to
    text: each positive against all texts of other images, its sibling texts being neither. Text to image: each text
    against all images. A text counts 1 / (texts of its image), so that every image counts the same. With one text an
    image, this is CLIP's loss.
    """
    count = len(images)
    logits = scale * images @ texts.T
    share = 1 / (torch.bincount(owners, minlength=count)[owners] * count)
    to_image = functional.cross_entropy(logits.T, owners, reduction="none")
    own = owners[None, :] == torch.arange(count, device=owners.device)[:, None]
    # The least number and not minus infinity, whose logsumexp has no gradient where a batch holds a single image.
    others = logits.masked_fill(own, torch.finfo(logits.dtype).min).logsumexp(dim=1)
    positives = logits[owners, torch.arange(len(texts), device=owners.device)]
    to_text = functional.softplus(others[owners] - positives, threshold=50)
    loss: torch.Tensor = ((to_image + to_text) * share).sum() / 2
    return loss
