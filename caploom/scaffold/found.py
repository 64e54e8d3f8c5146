"""What a place was found to hold."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from caploom.common.text import counted
from caploom.scaffold.sample import Sample


@dataclass(frozen=True)
class Recognized:
    """A form of data that a reader reads.

    Attributes:
        what: what people call it.
        pairs: the reader's mapping as the YAML has it, with whole paths or URLs.
        remarks: sentences about what a person should know.
        images: the number of its images where a listing tells it, and whether these are all.
    """

    what: str
    pairs: Mapping[str, Any]
    remarks: tuple[str, ...] = ()
    images: tuple[int, bool] | None = None
    splits: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Found:
    """What a place holds, and how the factory reads it.

    Attributes:
        place: the folder, table or URL.
        what: what people call it.
        pairs: the reader's mapping as the YAML has it, with whole paths or URLs.
        images: the number of images; `at_least` when there may be more.
        captions: captions in the rows that were read.
        sample: these rows.
        remarks: sentences about what a person should know: odd files, rows that will fail.
        splits: images by split, where a table has splits.
    """

    place: str
    what: str
    pairs: Mapping[str, Any]
    images: int
    at_least: bool
    sample: Sample
    remarks: tuple[str, ...] = ()
    splits: Mapping[str, int] = field(default_factory=dict)

    @property
    def captions(self) -> int:
        """Captions in the rows that were read."""
        return self.sample.captions

    @property
    def has_captions(self) -> bool:
        """Whether its images come with captions, or at least some of them."""
        return self.sample.captions > 0

    def sentence(self) -> str:
        """`12 images and 24 captions: a folder of images with texts.`"""
        number = counted(self.images, "images")
        captions = counted(self.captions, "captions") if self.captions else "no captions"
        least = "at least " if self.at_least else ""
        if self.captions and not self.sample.complete:
            captions = f"at least {captions}"
        return f"{self.place}: {self.what}; {least}{number}, {captions}."

    def to_dict(self) -> dict[str, Any]:
        """The same as JSON values."""
        return {
            "place": self.place,
            "what": self.what,
            "pairs": dict(self.pairs),
            "images": self.images,
            "images_at_least": self.at_least,
            "captions": self.captions,
            "captions_at_least": not self.sample.complete,
            "without_caption": self.sample.uncaptioned,
            "unusable": dict(self.sample.faults),
            "splits": dict(self.splits),
            "remarks": list(self.remarks),
        }
