"""What an export format is: its options as typed fields, and a `write` that fills a folder."""

import shlex
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import Field

from caploom.common.settings import Settings
from caploom.exports.images import Check, ExportImage, ImageStream


@dataclass
class Written:
    """The result of a format's `write`: its files (relative to the export's folder) and facts for `export.json`."""

    images: int = 0
    captions: int = 0
    files: list[str] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
    how_to_read: list[str] = field(default_factory=list)  # command lines or calls that read the export


class ExportFormat(Settings, ABC):
    """A format with its options. `write` streams: it holds no more than a few images at a time."""

    @property
    def image_check(self) -> Check:
        """How each image's file is checked first; a format that contains the images reads them anyway."""
        return "content"

    @abstractmethod
    def write(self, images: ImageStream, folder: Path, final: str) -> Written:
        """Write every image of the stream into `folder`, whose files will end up in `final`."""


class TextFormat(ExportFormat):
    """A format that names the image files and does not contain them."""

    check: Check = Field(
        default="content",
        description="`content` reads every image and compares its identity; `exists` only checks that the file is "
        "there; `none` checks nothing.",
    )

    @property
    def image_check(self) -> Check:
        """The option."""
        return self.check


class CaptionLines(TextFormat):
    """A format with one entry per (image, caption)."""

    one_per_image: bool = Field(
        default=False, description="One caption of each image, drawn with the mix's weights, instead of all."
    )
    seed: int = Field(default=0, description="Seed of the draw.")

    def entries(self, image: ExportImage, images: ImageStream) -> list[tuple[str, str]]:
        """The (caption, source) entries of an image; what was not drawn is counted."""
        if not self.one_per_image:
            return list(zip(image.captions, image.sources, strict=True))
        images.leave_out("not_drawn", len(image.captions) - 1)
        drawn = image.draw(self.seed)
        return [(image.captions[drawn], image.sources[drawn])]


def command(*words: str | Path | int | float) -> str:
    """A shell command line, quoted where the shell needs it."""
    return shlex.join(str(word) for word in words)
