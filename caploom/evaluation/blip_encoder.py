"""Evaluates a BLIP checkpoint: embeddings for the contrastive score (ITC), pairs for the matching score (ITM)."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from caploom.evaluation.embeddings import Done, ImageReader, embedded
from caploom.evaluation.encoders import PairScorer
from caploom.training.blip_model import BlipModel, load_blip

_IMAGES_AT_ONCE, _TEXTS_AT_ONCE, _PAIRS_AT_ONCE = 64, 256, 256
_TOP = 256  # candidates re-ranked, as in the original's evaluation on COCO


class BlipEncoder:
    """See `Encoder`. Raises `StoreError` when the checkpoint is incomplete."""

    scoring = "ITC"

    def __init__(self, checkpoint: Path, device: torch.device) -> None:
        self._model, self._device = load_blip(checkpoint), device
        self._network = self._model.network.to(device)
        self._images = ImageReader(self._model.preprocessing, device)
        self.pair_scorer: PairScorer | None = _Matcher(self._model, self._images, device)

    def embed_images(self, paths: Sequence[str], image_ids: Sequence[str], progress: Done | None = None) -> np.ndarray:
        """See `Encoder`."""

        def encode(block: slice) -> torch.Tensor:
            return self._network.encode_images(self._images.read(paths[block], image_ids[block]))[0]

        return embedded(paths, encode, _IMAGES_AT_ONCE, progress)

    def embed_texts(self, texts: Sequence[str], progress: Done | None = None) -> np.ndarray:
        """See `Encoder`."""

        def encode(block: slice) -> torch.Tensor:
            tokens = _trimmed(self._model.tokenize(list(texts[block])))
            return self._network.encode_texts(tokens.to(self._device))

        return embedded(texts, encode, _TEXTS_AT_ONCE, progress)


class _Matcher:
    """A `PairScorer`: the matching head's logit that image and text belong together."""

    label = f"ITC + ITM re-ranking of the top {_TOP}"
    top = _TOP

    def __init__(self, model: BlipModel, images: ImageReader, device: torch.device) -> None:
        self._model, self._images, self._device = model, images, device

    def score(
        self,
        paths: Sequence[str],
        image_ids: Sequence[str],
        texts: Sequence[str],
        image: np.ndarray,
        text: np.ndarray,
        progress: Done | None = None,
    ) -> np.ndarray:
        """See `PairScorer`. An image's states are computed once, for any order of the pairs."""
        scores = np.empty(len(image), np.float32)
        order = np.argsort(image, kind="stable")
        some, ordered = np.unique(image), image[order]
        all_tokens = self._model.tokenize(list(texts))
        done = 0
        with torch.inference_mode():
            for start in range(0, len(some), _IMAGES_AT_ONCE):
                block = some[start : start + _IMAGES_AT_ONCE]
                pixels = self._images.read([paths[i] for i in block], [image_ids[i] for i in block])
                _, states = self._model.network.encode_images(pixels)
                first, last = np.searchsorted(ordered, [block[0], block[-1] + 1])
                for begin in range(int(first), int(last), _PAIRS_AT_ONCE):
                    pairs = order[begin : min(begin + _PAIRS_AT_ONCE, int(last))]
                    of_images = states[torch.from_numpy(np.searchsorted(block, image[pairs])).to(self._device)]
                    tokens = _trimmed(all_tokens[torch.from_numpy(text[pairs])]).to(self._device)
                    logits = self._model.network.match(of_images, tokens)
                    scores[pairs] = logits[:, 1].float().cpu().numpy()
                    done += len(pairs)
                    if progress is not None:
                        progress(done)
        return scores


def _trimmed(tokens: torch.Tensor) -> torch.Tensor:
    """The token ids without the columns in which every text is over."""
    return tokens[:, : int(tokens.ne(0).sum(dim=1).max())]
