"""What evaluation needs of a checkpoint: embeddings of images and texts, and perhaps scores of single pairs."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

if TYPE_CHECKING:
    import torch

COSINE = "cosine"
"""The scoring of a model that has embeddings and nothing else."""


class PairScorer(Protocol):
    """Scores pairs better and slower than a product of embeddings, and so only each query's best candidates.

    Attributes:
        label: names the scoring in results.
        top: candidates of each query that are scored again.
    """

    label: str
    top: int

    def score(
        self,
        paths: Sequence[str],
        image_ids: Sequence[str],
        texts: Sequence[str],
        image: np.ndarray,
        text: np.ndarray,
        progress: Callable[[int], None] | None = None,
    ) -> np.ndarray:
        """float32 (pairs,): of image[i] (an index into `paths`) and text[i] (into `texts`), higher is better."""
        ...


class Encoder(Protocol):
    """A checkpoint's encoders.

    Attributes:
        scoring: names how their embeddings are compared: by their product.
        pair_scorer: re-ranks, where the model can.
    """

    scoring: str
    pair_scorer: PairScorer | None

    def embed_images(
        self, paths: Sequence[str], image_ids: Sequence[str], progress: Callable[[int], None] | None = None
    ) -> np.ndarray:
        """L2-normalized float32 (images, d); raises `EvaluationError` for an image that is gone or changed."""
        ...

    def embed_texts(self, texts: Sequence[str], progress: Callable[[int], None] | None = None) -> np.ndarray:
        """L2-normalized float32 (texts, d)."""
        ...


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
    """The encoders of a checkpoint folder, of whichever kind it is; raises `StoreError` when it is not whole.

    Example:
        >>> load_encoder(Path("checkpoint")).embed_texts(["a cat", "a dog"]).shape
        (2, 96)
    """
    from caploom.training.clip_model import resolve_device  # torch: only where something is embedded

    on = resolve_device(device)
    if (checkpoint / "blip_config.json").is_file():
        from caploom.evaluation.blip_encoder import BlipEncoder

        return BlipEncoder(checkpoint, on)
    return ClipEncoder(checkpoint, on)
