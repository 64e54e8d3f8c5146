"""What every captioner backend does: load once, then caption batches of decoded images."""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Literal, Protocol

from caploom.captioning.settings import CaptionerSettings

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True, slots=True)
class Generation:
    """What a captioner said of one image: the whole text, its new tokens, and why it ended."""

    text: str
    tokens: int
    finish_reason: Literal["stop", "length"]


class Backend(Protocol):
    """A loaded captioner."""

    device: str

    def caption(self, images: Sequence["Image"], image_ids: Sequence[str]) -> list[Generation]:
        """One generation for each RGB image, in their order.

        The ids key the sampling, so that the same image gets the same text in whatever batch it comes. Raises whatever
        the model raises; the engine then finds the image at fault.
        """
        ...


BACKENDS = {"transformers": "caploom.captioning.transformers_backend:TransformersBackend"}


def load_backend(settings: CaptionerSettings) -> Backend:
    """Load the captioner's model; raises `CaptionerError` saying what its folder lacks or why it does not load."""
    module, name = BACKENDS[settings.backend].split(":")
    backend: Backend = getattr(import_module(module), name)(settings)
    return backend
