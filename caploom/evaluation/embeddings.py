"""Embeddings of images and texts by a trained checkpoint, in blocks."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from open_clip.transform import PreprocessCfg

from caploom.errors import EvaluationError
from caploom.evaluation.encoders import COSINE, PairScorer
from caploom.images.decode import ImageFault
from caploom.training.clip_model import ClipModel, encode_text, trim_padding
from caploom.training.images import ImageDecoder

_BLOCK = 256

Done = Callable[[int], None]


class ClipEncoder:
    """A CLIP model's encoders; see `Encoder`."""

    scoring = COSINE
    pair_scorer: PairScorer | None = None

    def __init__(self, model: ClipModel, device: torch.device) -> None:
        self._network, self._tokenize, self._device = model.network.to(device).eval(), model.tokenize, device
        self._images = ImageReader(model.preprocessing, device)

    def embed_images(self, paths: Sequence[str], image_ids: Sequence[str], progress: Done | None = None) -> np.ndarray:
        """See `Encoder`."""

        def encode(block: slice) -> torch.Tensor:
            features: torch.Tensor = self._network.encode_image(
                self._images.read(paths[block], image_ids[block]), normalize=True
            )
            return features

        return embedded(paths, encode, _BLOCK, progress)

    def embed_texts(self, texts: Sequence[str], progress: Done | None = None) -> np.ndarray:
        """See `Encoder`."""

        def encode(block: slice) -> torch.Tensor:
            tokens = trim_padding(self._network, self._tokenize(list(texts[block])))
            return encode_text(self._network, tokens.to(self._device))

        return embedded(texts, encode, _BLOCK, progress)


class ImageReader:
    """Reads and normalizes images for a model."""

    def __init__(self, preprocessing: PreprocessCfg, device: torch.device) -> None:
        self._decoder, self._device = ImageDecoder(preprocessing), device

    def read(self, paths: Sequence[str], image_ids: Sequence[str]) -> torch.Tensor:
        """float32 (N, 3, height, width) on the device.

        Raises `EvaluationError` for an image that cannot be read: a recall over the others would be another set's.
        """
        try:
            pixels = [self._decoder.decode(path, each) for path, each in zip(paths, image_ids, strict=True)]
        except ImageFault as error:
            raise EvaluationError(f"{error} Restore the image or rebuild the evaluation set without it.") from None
        return self._decoder.normalize(torch.from_numpy(np.stack(pixels)).to(self._device))


def embedded(
    items: Sequence[str], encode: Callable[[slice], torch.Tensor], at_once: int, progress: Done | None
) -> np.ndarray:
    """The embeddings of all items, float32 (items, d), from those of `at_once` items; `progress` gets the items done.

    Raises `EvaluationError` when an embedding is not a number.
    """
    blocks = []
    with torch.inference_mode():
        for start in range(0, len(items), at_once):
            block = slice(start, min(start + at_once, len(items)))
            blocks.append(encode(block).float().cpu().numpy())
            wrong = np.flatnonzero(~np.isfinite(blocks[-1]).all(axis=1))
            if len(wrong):
                raise EvaluationError(
                    f'The model\'s embedding of "{items[start + wrong[0]]}" is not a number; its training failed: '
                    "retrain it with a lower learning rate."
                )
            if progress is not None:
                progress(block.stop)
    return np.concatenate(blocks)
