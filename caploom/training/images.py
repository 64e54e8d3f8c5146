"""Image files decoded into what a CLIP image tower takes: RGB, resized and cropped as open_clip does for evaluation."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import open_clip
import torch
from open_clip.transform import PreprocessCfg
from PIL import Image


class ImageUnavailable(Exception):
    """An image file cannot be used; `reason` is a short word to count by, the message a sentence for a person."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class ImageDecoder:
    """Decodes image files to uint8 arrays of shape (3, height, width) for one model's preprocessing.

    Eight-bit arrays are a quarter of the float32 tensors, so four times as many fit into a cache; `normalize` makes the
    tensor of them that open_clip's own evaluation transform would have made.
    """

    def __init__(self, preprocessing: PreprocessCfg) -> None:
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

    def decode(self, path: str) -> np.ndarray:
        """The image at `path`, uint8 of shape (3, height, width). Raises `ImageUnavailable`."""
        try:
            with Image.open(path) as file:
                pixels = self._transform(_to_rgb(file))
        except FileNotFoundError:
            raise ImageUnavailable("missing_image", f"{path}: the image is no longer there.") from None
        except Exception as error:  # PIL's plugins raise nearly anything for a damaged file
            empty = Path(path).is_file() and Path(path).stat().st_size == 0
            reason = "empty_image" if empty else "unreadable_image"
            raise ImageUnavailable(reason, f"{path}: the image cannot be decoded ({error}).") from error
        return (pixels * 255).round().to(torch.uint8).numpy()

    def normalize(self, images: torch.Tensor) -> torch.Tensor:
        """uint8 images of shape (N, 3, height, width), on any device -> float32, normalized for the model."""
        mean, std = self._mean.to(images.device), self._std.to(images.device)
        return (images.float() / 255 - mean) / std


def _to_rgb(image: Image.Image) -> Image.Image:
    """RGB with whatever is transparent on white: PIL's plain conversion shows the colours hidden under it."""
    if image.mode not in ("RGBA", "LA", "PA") and "transparency" not in image.info:
        return image.convert("RGB")
    layered = image.convert("RGBA")
    white = Image.new("RGBA", layered.size, "white")
    return Image.alpha_composite(white, layered).convert("RGB")
