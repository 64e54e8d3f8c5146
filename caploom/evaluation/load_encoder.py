"""Loads the encoders of any kind of checkpoint."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from caploom.evaluation.encoders import COSINE, Encoder, PairScorer

if TYPE_CHECKING:
    import torch


class ClipEncoder:
    """A CLIP checkpoint's encoders; see `Encoder`."""

    scoring = COSINE
    pair_scorer: PairScorer | None = None

    def __init__(self, checkpoint: Path, device: "torch.device") -> None:
        from caploom.training.clip_model import load_checkpoint

        self._model, self._device = load_checkpoint(checkpoint), device

    def embed_images(
        self, paths: Sequence[str], image_ids: Sequence[str], progress: Callable[[int], None] | None = None
    ) -> np.ndarray:
        """See `Encoder`."""
        from caploom.evaluation.embeddings import embed_images

        return embed_images(self._model, paths, image_ids, device=self._device, progress=progress)

    def embed_texts(self, texts: Sequence[str], progress: Callable[[int], None] | None = None) -> np.ndarray:
        """See `Encoder`."""
        from caploom.evaluation.embeddings import embed_texts

        return embed_texts(self._model, texts, device=self._device, progress=progress)


def load_encoder(checkpoint: Path, device: str = "auto") -> Encoder:
    """The encoders of a checkpoint folder of any kind; raises `StoreError` when it is incomplete.

    Example:
        >>> load_encoder(Path("checkpoint")).embed_texts(["a cat", "a dog"]).shape
        (2, 96)
    """
    from caploom.training.clip_model import resolve_device  # imports torch, which is needed only for embedding

    on = resolve_device(device)
    if (checkpoint / "blip_config.json").is_file():
        from caploom.evaluation.blip_encoder import BlipEncoder

        return BlipEncoder(checkpoint, on)
    return ClipEncoder(checkpoint, on)
