"""Image files decoded into what a CLIP image tower takes: RGB, resized and cropped as open_clip does for evaluation."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import open_clip
import torch
from open_clip.transform import PreprocessCfg
from PIL import Image

from caploom.images import decode_image, read_identified_image


class ImageDecoder:
    """Decodes image files to uint8 arrays of shape (3, height, width) for one model's preprocessing.

    Eight-bit arrays are a quarter of the float32 tensors, so four times as many fit into a cache; `normalize` makes the
    tensor of them that open_clip's own evaluation transform would have made.
    """

    def __init__(self, preprocessing: PreprocessCfg, *, draft: bool = False) -> None:
        # Mean 0 and deviation 1 leave pixel / 255, from which the eight bits come back exactly.
        self._transform: Callable[[Image.Image], torch.Tensor] = open_clip.image_transform(
            preprocessing.size,
            is_train=False,
            mean=(0.0, 0.0, 0.0),
            std=(1.0, 1.0, 1.0),
            interpolation=preprocessing.interpolation,
            resize_mode=preprocessing.resize_mode,
            fill_color=preprocessing.fill_color,
        )
        self._mean = torch.tensor(preprocessing.mean).view(3, 1, 1)
        self._std = torch.tensor(preprocessing.std).view(3, 1, 1)

    def decode(self, path: str, image_id: str) -> np.ndarray:
        """The image at `path`, uint8 of shape (3, height, width).

        Raises `ImageFault`, also when the file is no longer the image of that identity: its captions are another's.
        """
        pixels = self._transform(decode_image(read_identified_image(Path(path), image_id), path))
        return (pixels * 255).round().to(torch.uint8).numpy()

    def normalize(self, images: torch.Tensor) -> torch.Tensor:
        """uint8 images of shape (N, 3, height, width), on any device -> float32, normalized for the model."""
        mean, std = self._mean.to(images.device), self._std.to(images.device)
        return (images.float() / 255 - mean) / std
