"""A real captioner for the workers of a pool: it names colours, and imports no torch, so a worker starts at once."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image
from small_factory import ColourBackend

from caploom.captioning.backend import CanaryRow, ImageRef
from caploom.captioning.settings import TransformersCaptioner
from caploom.errors import CaptionerError

NO_MODEL = "no-model"


class PooledColours(ColourBackend):
    """Leaves beside each picture the number of the process that looked at it."""

    def prepare(self, images: Sequence[Image.Image], refs: Sequence[ImageRef]) -> Any:
        for ref in refs:
            Path(ref.path).with_suffix(".process").write_text(str(os.getpid()))
        return super().prepare(images, refs)

    def canary(self, refs: Sequence[ImageRef]) -> list[CanaryRow]:
        texts = [(ref.image, self.look(ref.opened()).text) for ref in refs]
        return [CanaryRow(image, text, text, True) for image, text in texts]


def load_colours(settings: TransformersCaptioner, device: str) -> PooledColours:
    if settings.model == NO_MODEL:
        raise CaptionerError(f"{settings.model}: there is no such model.")
    return PooledColours(settings.batch_size, settings.prefetch)
