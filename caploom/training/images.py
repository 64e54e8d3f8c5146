"""Decodes training and evaluation images: RGB, resized and cropped like open_clip's evaluation transform."""

import warnings

import numpy as np
import open_clip
import torch
from open_clip.transform import PreprocessCfg
from PIL import Image
from torch.nn.functional import interpolate
from torchvision.transforms import Normalize, ToTensor

from caploom.images.decode import decode_image, read_identified_image

_FAST_MODES = ("shortest", "squash")
_FAST_INTERPOLATIONS = ("bicubic", "bilinear")


class ImageDecoder:
    """Decodes image files to uint8 arrays of shape (3, height, width) for one model's preprocessing.

    Eight-bit arrays are a quarter of the float32 tensors, so four times as many fit into a cache; `normalize` turns
    them into the same tensor as open_clip's own evaluation transform. With `draft`, for training, large JPEGs
    are decoded at a smaller size and the resizing is torch's, twice as fast; pixels differ by less than 2 of 255 in the
    mean.
    """

    def __init__(self, preprocessing: PreprocessCfg, *, draft: bool = False) -> None:
        self.preprocessing = preprocessing
        transform = open_clip.image_transform(
            preprocessing.size,
            is_train=False,
            mean=preprocessing.mean,
            std=preprocessing.std,
            interpolation=preprocessing.interpolation,
            resize_mode=preprocessing.resize_mode,
            fill_color=preprocessing.fill_color,
        )
        # The remaining steps work on images: bytes need not become floats and bytes again.
        self._steps = [step for step in transform.transforms if not isinstance(step, ToTensor | Normalize)]
        size = preprocessing.size
        self._height: int = size if isinstance(size, int) else size[0]
        self._width: int = size if isinstance(size, int) else size[1]
        self._draft = (
            draft
            and (preprocessing.resize_mode or "shortest") in _FAST_MODES
            and preprocessing.interpolation in _FAST_INTERPOLATIONS
            and self._height == self._width
        )
        # (pixel / 255 - mean) / std, as one product and one sum in place.
        mean, std = (torch.tensor(each).double().view(3, 1, 1) for each in (preprocessing.mean, preprocessing.std))
        self._factor, self._offset = (1 / (255 * std)).float(), (-mean / std).float()

    @property
    def shape(self) -> tuple[int, int, int]:
        """The shape of decoded images: (3, height, width)."""
        return 3, self._height, self._width

    def decode(self, path: str, image_id: str) -> np.ndarray:
        """The image at `path`, uint8 of shape (3, height, width).

        Raises `ImageFault`, also when the file no longer has that identity: its captions belong to another image.
        """
        data = read_identified_image(path, image_id)
        if self._draft:
            return self._resized(decode_image(data, path, at_least=self._height))
        image = decode_image(data, path)
        for step in self._steps:
            image = step(image)
        return np.ascontiguousarray(np.asarray(image).transpose(2, 0, 1))

    def normalize(self, images: torch.Tensor) -> torch.Tensor:
        """uint8 images of shape (N, 3, height, width), on any device -> float32, normalized for the model."""
        factor, offset = self._factor.to(images.device), self._offset.to(images.device)
        return images.float().mul_(factor).add_(offset)

    def _resized(self, image: Image.Image) -> np.ndarray:
        """Resized and cropped at the centre, to exactly the pixels of open_clip's transform."""
        side, (width, height) = self._height, image.size
        if self.preprocessing.resize_mode == "squash":
            width, height = side, side
        elif width <= height:
            width, height = side, int(side * height / width)
        else:
            width, height = int(side * width / height), side
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # Pillow's memory is read-only, and it is only read
            pixels = torch.from_numpy(np.asarray(image)).permute(2, 0, 1)[None]
        mode = self.preprocessing.interpolation
        resized = interpolate(pixels, size=(height, width), mode=mode, antialias=True, align_corners=False)[0]
        top, left = round((height - side) / 2), round((width - side) / 2)
        return resized[:, top : top + side, left : left + side].contiguous().numpy()
