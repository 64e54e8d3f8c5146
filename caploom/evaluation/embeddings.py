"""Embeddings of images and texts by a trained checkpoint, in blocks."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from caploom.errors import EvaluationError
from caploom.images.decode import ImageFault
from caploom.training.clip_model import ClipModel, encode_text, trim_padding
from caploom.training.images import ImageDecoder

_BLOCK = 256


def embed_images(
    model: ClipModel,
    paths: Sequence[str],
    image_ids: Sequence[str],
    *,
    device: torch.device,
    progress: Callable[[int], None] | None = None,
) -> np.ndarray:
    """L2-normalized float32 embeddings of shape (images, d), in the order of `paths` and their identities.

    `progress` is called with the number of images done. Raises `EvaluationError` when an image cannot be read, since a
    recall over the remaining images would be another set's, or when an embedding is not a number.
    """
    decoder = ImageDecoder(model.preprocessing)

    def encode(block: Sequence[tuple[str, str]]) -> torch.Tensor:
        try:
            pixels = np.stack([decoder.decode(path, image_id) for path, image_id in block])
        except ImageFault as error:
            raise EvaluationError(f"{error} Restore the image or rebuild the evaluation set without it.") from None
        images = decoder.normalize(torch.from_numpy(pixels).to(device))
        features: torch.Tensor = model.network.encode_image(images, normalize=True)
        return features

    return _embed(model, list(zip(paths, image_ids, strict=True)), encode, device, progress)


def embed_texts(
    model: ClipModel, texts: Sequence[str], *, device: torch.device, progress: Callable[[int], None] | None = None
) -> np.ndarray:
    """L2-normalized float32 embeddings of shape (texts, d), in order. Raises `EvaluationError` like `embed_images`."""

    def encode(block: Sequence[str]) -> torch.Tensor:
        tokens = trim_padding(model.network, model.tokenize(list(block)))
        return encode_text(model.network, tokens.to(device))

    return _embed(model, texts, encode, device, progress)


def _embed(
    model: ClipModel,
    items: Sequence[Any],
    encode: Callable[[Sequence[Any]], torch.Tensor],
    device: torch.device,
    progress: Callable[[int], None] | None,
) -> np.ndarray:
    model.network.to(device).eval()
    blocks = []
    with torch.inference_mode():
        for start in range(0, len(items), _BLOCK):
            block = items[start : start + _BLOCK]
            embeddings = encode(block).float().cpu().numpy()
            wrong = np.flatnonzero(~np.isfinite(embeddings).all(axis=1))
            if len(wrong):
                raise EvaluationError(
                    f'The model\'s embedding of "{block[wrong[0]]}" is not a number; its training failed: '
                    "retrain it with a lower learning rate."
                )
            blocks.append(embeddings)
            if progress is not None:
                progress(start + len(block))
    return np.concatenate(blocks)
