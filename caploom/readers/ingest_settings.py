"""The YAML's `ingest`: which incoming images and captions are refused, each with a reason."""

import re
from typing import Any, Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, field_validator

from caploom.common.settings import Settings
from caploom.errors import ImageFault


class IngestSettings(Settings):
    """Limits for incoming pairs. Without a limit everything is accepted."""

    raw_captions: Literal["optional", "required"] = Field(
        default="optional",
        description="Whether an image without a raw caption is a pair, which captioners caption, or a failure.",
    )
    min_side: PositiveInt | None = Field(default=None, description="Pixels of the shorter side, at least.")
    max_side: PositiveInt | None = Field(default=None, description="Pixels of the longer side, at most.")
    min_pixels: PositiveInt | None = Field(default=None, description="Width times height, at least.")
    max_pixels: PositiveInt | None = Field(default=None, description="Width times height, at most.")
    max_aspect_ratio: PositiveFloat | None = Field(default=None, ge=1, description="Longer side over shorter, at most.")
    min_caption_words: NonNegativeInt = Field(default=0, description="Words of a raw caption, at least.")
    max_caption_words: PositiveInt | None = Field(default=None, description="Words of a raw caption, at most.")
    min_caption_characters: NonNegativeInt = Field(default=0, description="Characters of a raw caption, at least.")
    max_caption_characters: PositiveInt = Field(
        default=100_000, description="Characters of a raw caption, at most; a page of text is not a caption."
    )
    refuse_captions: list[str] = Field(
        default=[], description="Regular expressions; a raw caption in which one is found is refused."
    )

    @field_validator("refuse_captions")
    @classmethod
    def _can_be_compiled(cls, value: list[str]) -> list[str]:
        for pattern in value:
            try:
                re.compile(pattern)
            except re.error as error:
                raise ValueError(f"{pattern!r} is not a regular expression ({error})") from None
        return value

    def fingerprinted(self) -> dict[str, Any]:
        """The limits that differ from the defaults, so that a new kind of limit leaves old artifacts valid."""
        return self.model_dump(mode="json", exclude_defaults=True)

    def check_size(self, width: int, height: int, name: str) -> None:
        """Raise `ImageFault` when an image of this size is refused."""
        shorter, longer = sorted((width, height))
        bounds = (
            (
                self.min_side,
                shorter,
                "image_too_small",
                "a side of {value:,} pixels is below min_side {bound:,}",
            ),
            (self.max_side, longer, "image_too_big", "a side of {value:,} pixels is above max_side {bound:,}"),
            (self.min_pixels, width * height, "image_too_small", "{value:,} pixels are below min_pixels {bound:,}"),
            (self.max_pixels, width * height, "image_too_big", "{value:,} pixels are above max_pixels {bound:,}"),
        )
        for bound, value, reason, sentence in bounds:
            if bound is not None and (value < bound if reason == "image_too_small" else value > bound):
                raise ImageFault(reason, f"{name}: {sentence.format(value=value, bound=bound)}.")
        if self.max_aspect_ratio is not None and longer > self.max_aspect_ratio * shorter:
            raise ImageFault(
                "aspect_ratio",
                f"{name}: {width} x {height} is longer than max_aspect_ratio {self.max_aspect_ratio:g} allows.",
            )

    def check_caption(self, caption: str, where: str) -> None:
        """Raise `ImageFault` when a raw caption is refused; `where` names its row."""
        words, characters = len(caption.split()), len(caption)
        if words < self.min_caption_words:
            raise ImageFault("caption_too_short", f"{where}: {words} words, fewer than min_caption_words asks for.")
        if self.max_caption_words is not None and words > self.max_caption_words:
            raise ImageFault("caption_too_long", f"{where}: {words:,} words, more than max_caption_words allows.")
        if characters < self.min_caption_characters:
            raise ImageFault("caption_too_short", f"{where}: {characters} characters, below min_caption_characters.")
        if characters > self.max_caption_characters:
            raise ImageFault("caption_too_long", f"{where}: {characters:,} characters, above max_caption_characters.")
        for pattern in self.refuse_captions:
            if re.search(pattern, caption):
                raise ImageFault("caption_refused", f"{where}: the caption matches refuse_captions {pattern!r}.")
