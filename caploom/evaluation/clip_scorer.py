"""Scores images and captions with any open_clip model: the cosine of their embeddings, -1 to 1."""

from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from caploom.errors import TrainingError
from caploom.images.decode import ImageFault
from caploom.images.moves import STAYED, Moves
from caploom.training_set.filter_settings import ScoredStep

if TYPE_CHECKING:
    from caploom.training.clip_model import ClipModel


class ClipScorer:
    """A loaded open_clip model. Raises `TrainingError` or `StoreError` when loading fails.

    `moves` says where the images are now.
    """

    def __init__(self, settings: ScoredStep, moves: Moves = STAYED) -> None:
        from caploom.training.clip_model import resolve_device
        from caploom.training.images import ImageDecoder

        self._batch_size = settings.batch_size
        self._moves = moves
        self.device = resolve_device(settings.device)
        self._model = _load(settings)
        self._model.network.to(self.device).eval()
        self._decoder = ImageDecoder(self._model.preprocessing)

    def score(self, captions: pa.Table) -> np.ndarray:
        """float32 of shape (captions,), NaN where the image is unreadable.

        `captions` has image_id, path and caption, grouped by image, so that an image is decoded once.
        """
        import torch

        scores = np.full(len(captions), np.nan, np.float32)
        texts = captions["caption"]
        with torch.inference_mode():
            for images in self._blocks(captions):
                pixels, owner, rows = [], [], []
                for image_id, path, its_rows in images:
                    try:
                        pixels.append(self._decoder.decode(self._moves.present(path), image_id))
                    except ImageFault:
                        continue  # no score: its captions are dropped as "not_scored"
                    owner += [len(pixels) - 1] * len(its_rows)
                    rows += its_rows
                if not pixels:
                    continue
                features = self._encode_images(np.stack(pixels))
                for start in range(0, len(rows), self._batch_size):
                    some = rows[start : start + self._batch_size]
                    of_texts = self._encode_texts(texts.take(pa.array(some)).to_pylist())
                    of_images = features[owner[start : start + self._batch_size]]
                    scores[some] = (of_texts * of_images).sum(dim=1).float().cpu().numpy()
                if np.isnan(scores[rows]).any():
                    raise TrainingError("The scorer's outputs are not numbers: its weights are damaged; name others.")
        return scores

    def _blocks(self, captions: pa.Table) -> Iterator[list[tuple[str, str, list[int]]]]:
        """Image, path and rows of up to `batch_size` images at a time."""
        ids, paths = captions["image_id"].to_pylist(), captions["path"].to_pylist()
        block = []
        for image_id, rows in groupby(range(len(ids)), key=ids.__getitem__):
            its_rows = list(rows)
            block.append((image_id, paths[its_rows[0]], its_rows))
            if len(block) == self._batch_size:
                yield block
                block = []
        if block:
            yield block

    def _encode_images(self, pixels: np.ndarray) -> Any:
        import torch

        images = self._decoder.normalize(torch.from_numpy(pixels).to(self.device))
        return self._model.network.encode_image(images, normalize=True)

    def _encode_texts(self, texts: list[str]) -> Any:
        from caploom.training.clip_model import encode_text, trim_padding

        network = self._model.network
        return encode_text(network, trim_padding(network, self._model.tokenize(texts)).to(self.device))


def _load(settings: ScoredStep) -> "ClipModel":
    from caploom.training.clip_model import load_checkpoint
    from caploom.training.clip_weights import start_model

    if settings.pretrained is None:
        return load_checkpoint(Path(settings.model))
    return start_model(settings.model, settings.pretrained, seed=0)
