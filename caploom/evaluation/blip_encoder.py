"""Evaluates a BLIP checkpoint: embeddings for the contrastive score (ITC), pairs for the matching score (ITM)."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from caploom.errors import EvaluationError
from caploom.evaluation.encoders import PairScorer
from caploom.images.decode import ImageFault
from caploom.training.blip_model import BlipModel, load_blip
from caploom.training.images import ImageDecoder

_IMAGES_AT_ONCE, _TEXTS_AT_ONCE, _PAIRS_AT_ONCE = 64, 256, 256
_TOP = 256  # candidates re-ranked, as in the original's evaluation on COCO

Done = Callable[[int], None]


class BlipEncoder:
    """See `Encoder`. Raises `StoreError` when the checkpoint is incomplete."""

    scoring = "ITC"

    def __init__(self, checkpoint: Path, device: torch.device) -> None:
        self._model, self._device = load_blip(checkpoint), device
        self._model.network.to(device)
        self._images = _Images(self._model, device)
        self.pair_scorer: PairScorer | None = _Matcher(self._model, self._images, device)

    def embed_images(self, paths: Sequence[str], image_ids: Sequence[str], progress: Done | None = None) -> np.ndarray:
        """See `Encoder`."""
        blocks = []
        with torch.inference_mode():
            for start in range(0, len(paths), _IMAGES_AT_ONCE):
                block = slice(start, start + _IMAGES_AT_ONCE)
                features, _ = self._model.network.encode_images(self._images.read(paths[block], image_ids[block]))
                blocks.append(_numbers(features, paths[block]))
                _report(progress, min(start + _IMAGES_AT_ONCE, len(paths)))
        return np.concatenate(blocks)

    def embed_texts(self, texts: Sequence[str], progress: Done | None = None) -> np.ndarray:
        """See `Encoder`."""
        blocks = []
        with torch.inference_mode():
            for start in range(0, len(texts), _TEXTS_AT_ONCE):
                block = list(texts[start : start + _TEXTS_AT_ONCE])
                tokens = _trimmed(self._model.tokenize(block)).to(self._device)
                features = self._model.network.encode_texts(tokens)
                blocks.append(_numbers(features, block))
                _report(progress, min(start + _TEXTS_AT_ONCE, len(texts)))
        return np.concatenate(blocks)


class _Matcher:
    """A `PairScorer`: the matching head's logit that image and text belong together."""

    label = f"ITC + ITM re-ranking of the top {_TOP}"
    top = _TOP

    def __init__(self, model: BlipModel, images: "_Images", device: torch.device) -> None:
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
                    _report(progress, done)
        return scores


class _Images:
    """Reads and normalizes images for a model."""

    def __init__(self, model: BlipModel, device: torch.device) -> None:
        self._decoder, self._device = ImageDecoder(model.preprocessing), device

    def read(self, paths: Sequence[str], image_ids: Sequence[str]) -> torch.Tensor:
        """float32 (N, 3, height, width) on the device; raises `EvaluationError` for an image that cannot be read."""
        try:
            pixels = [self._decoder.decode(path, each) for path, each in zip(paths, image_ids, strict=True)]
        except ImageFault as error:
            raise EvaluationError(f"{error} Restore the image or rebuild the evaluation set without it.") from None
        return self._decoder.normalize(torch.from_numpy(np.stack(pixels)).to(self._device))


def _trimmed(tokens: torch.Tensor) -> torch.Tensor:
    """The token ids without the columns in which every text is over."""
    return tokens[:, : int(tokens.ne(0).sum(dim=1).max())]


def _numbers(features: torch.Tensor, items: Sequence[str]) -> np.ndarray:
    embeddings = features.float().cpu().numpy()
    wrong = np.flatnonzero(~np.isfinite(embeddings).all(axis=1))
    if len(wrong):
        raise EvaluationError(
            f'The model\'s embedding of "{items[wrong[0]]}" is not a number; its training failed: '
            "retrain it with a lower learning rate."
        )
    return embeddings


def _report(progress: Done | None, done: int) -> None:
    if progress is not None:
        progress(done)
