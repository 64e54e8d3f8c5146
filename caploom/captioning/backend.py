"""The interface of captioner backends: they take images, and return each once, captioned or failed."""

import re
from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal, Protocol

from caploom.captioning.settings import RAW_CAPTION, CaptionerSettings
from caploom.images.decode import decode_image, read_identified_image
from caploom.storage.store import Store

if TYPE_CHECKING:
    from PIL.Image import Image

_TAG = re.compile(r"<[^<>\s]{1,40}>")


@dataclass(frozen=True, slots=True)
class ImageRef:
    """An image to caption: its identity, its location, and the user's name for it.

    `raw_caption` is one that the image came with; `width` and `height` are in pixels as ingested. `pixels` is the image
    if it is already decoded.
    """

    image_id: str
    path: str
    image: str
    raw_caption: str = ""
    width: int = 0
    height: int = 0
    pixels: "Image | None" = field(default=None, compare=False, repr=False)

    def opened(self) -> "Image":
        """The image, RGB; raises `ImageFault` when its file is gone, changed or cannot be decoded."""
        if self.pixels is not None:
            return self.pixels
        return decode_image(read_identified_image(self.path, self.image_id), self.image)

    def prompted(self, prompt: str) -> str:
        """The captioner's prompt for this image, with its raw caption filled in without tags.

        Web captions contain HTML, and an `<image>` or `<|im_end|>` in one must not be taken for the prompt's own.
        """
        return prompt.replace(RAW_CAPTION, _TAG.sub(" ", self.raw_caption))


FinishReason = Literal["stop", "length", "shear", "imported"]


@dataclass(frozen=True, slots=True)
class Generation:
    """A captioner's output for one image: the whole text, its new tokens, and why it ended.

    `stop`: its end token or a stop string; `length`: the token cap; `shear`: no shear needs more; `imported`: it
    existed before. `tokens` is None where they were not counted.
    """

    text: str
    tokens: int | None
    finish_reason: FinishReason


@dataclass(frozen=True, slots=True)
class Captioned:
    """An image's generation, and its share of the model's seconds."""

    ref: ImageRef
    generation: Generation
    seconds: float


@dataclass(frozen=True, slots=True)
class Failed:
    """An image without a caption, and why: a short word to count by, and a sentence."""

    ref: ImageRef
    reason: str
    detail: str


@dataclass(frozen=True, slots=True)
class Chunk:
    """The results of some images."""

    captioned: Sequence[Captioned]
    failed: Sequence[Failed]


@dataclass(frozen=True, slots=True)
class CanaryRow:
    """An image's text in a batch and alone, both greedy, and whether they are the same within the dtype's noise."""

    image: str
    batched: str
    single: str
    equal: bool


class Backend(Protocol):
    """A loaded captioner; `device` is where it runs."""

    device: str

    @property
    def facts(self) -> dict[str, Any]:
        """Facts for the manifest beyond the settings: the hub's commit, a file's rows that matched an image."""
        ...

    def caption(self, refs: Iterable[ImageRef]) -> Generator[Chunk, None, None]:
        """Caption images, in any order and chunks; every image comes back once.

        Raises `CaptionerError` when the captioner as a whole is broken; an image at fault is a `Failed`.
        """
        ...

    def canary(self, refs: Sequence[ImageRef]) -> list[CanaryRow] | None:
        """The texts of these images in one batch and alone; None where nothing is batched."""
        ...

    def close(self) -> None:
        """Release weights, processes and connections."""
        ...


BACKENDS = {
    "transformers": "caploom.captioning.transformers_backend:open_transformers",
    "openai": "caploom.captioning.endpoint:EndpointBackend",
    "import": "caploom.captioning.imported:ImportBackend",
}


def load_backend(settings: CaptionerSettings, store: Store) -> Backend:
    """Load the captioner; raises `CaptionerError` saying what its folder lacks or why it does not load.

    `store` is the factory's, in which imported captions find the identities of ingested images.

    Example:
        >>> backend = load_backend(factory.config.captioners["colours"], factory.store)
        >>> image_id = sha256(Path("images/cat.png").read_bytes()).hexdigest()
        >>> [chunk] = backend.caption([ImageRef(image_id, path="images/cat.png", image="cat.png")])
        >>> type(chunk.captioned[0].generation.text)
        <class 'str'>
    """
    module, name = BACKENDS[settings.backend].split(":")
    backend: Backend = getattr(import_module(module), name)(settings, store)
    return backend


def settled(ref: ImageRef, generation: Generation, seconds: float) -> Captioned | Failed:
    """The result of one generation: an empty caption is a failure."""
    if generation.text.strip():
        return Captioned(ref, generation, seconds)
    return Failed(ref, "empty_caption", f"{ref.image}: the captioner returned an empty caption.")
