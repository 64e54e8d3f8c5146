"""What came of trying a captioner, and how it is shown: in a terminal, a notebook, the UI, and on a page."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from caploom.common.names import RAW_SOURCE
from caploom.common.text import counted, seconds_text, terminal_text
from caploom.questions.gallery import GalleryRow, gallery_markdown
from caploom.questions.gallery_html import page_html, picture_html, table_html, text_html

Span = tuple[int, int]


@dataclass(frozen=True)
class TriedImage:
    """An image, and what the captioner says of it.

    Attributes:
        image_id: its identity.
        image: the user's name for it.
        path: its location.
        raw_caption: the first caption that it came with; empty where it came without one.
        text: what the captioner says, whole; empty where it failed.
        kept: by the shears that recipes apply to this captioner, the part of `text` that stays, in characters.
        reason: a short word for why there is no text; empty where there is one.
        detail: the same as a sentence.
    """

    image_id: str
    image: str
    path: str
    raw_caption: str = ""
    text: str = ""
    kept: Mapping[str, Span] = field(default_factory=dict)
    reason: str = ""
    detail: str = ""

    def parts(self, shear: str) -> tuple[str, str, str]:
        """The text in three: what a shear cuts off before, what it keeps, what it cuts off after."""
        start, end = self.kept.get(shear, (0, len(self.text)))
        return self.text[:start], self.text[start:end], self.text[end:]


@dataclass(frozen=True)
class CaptionerTry:
    """What a captioner says of the first images of a shard.

    A notebook shows it as pictures with texts; printed, it is the texts.

    Attributes:
        captioner: its name.
        model: its model's id, or its file's name.
        shard: of the images.
        images: in the shard's order.
        shears: that recipes apply to this captioner, in the YAML's order.
        generated: how many images it was asked about now; the other texts were there before.
        seconds: that asking took, loading the model included.
        page: HTML file with the pictures and texts.
    """

    captioner: str
    model: str
    shard: str
    images: tuple[TriedImage, ...]
    shears: tuple[str, ...]
    generated: int
    seconds: float
    page: Path

    @property
    def failed(self) -> int:
        """How many of the images have no text."""
        return sum(not image.text for image in self.images)

    def summary(self) -> str:
        """What was done, in one sentence."""
        asked = f"{self.generated} asked about now"
        took = f" in {seconds_text(self.seconds)}" if self.generated else ""
        failed = f", {self.failed} without a text" if self.failed else ""
        about = f"{self.captioner} ({self.model}) on the first {counted(len(self.images), 'images')} of {self.shard}"
        return f"{about}: {asked}{took}, {len(self.images) - self.generated} kept from before{failed}."

    def to_dict(self) -> dict[str, Any]:
        """The form that `--json` prints."""
        images = []
        for image in self.images:
            kept = {shear: image.parts(shear)[1] for shear in image.kept}
            images.append({**asdict(image), "kept": kept})
        return {**asdict(self), "images": images, "failed": self.failed, "page": str(self.page)}

    def __repr__(self) -> str:
        """Every image with its text, and what the shears make of it, for a terminal."""
        lines = [terminal_text(self.summary())]
        for image in self.images:
            lines += ["", terminal_text(image.image)]
            if not image.text:
                lines.append(f"  no caption ({terminal_text(image.reason)}): {terminal_text(image.detail)}")
                continue
            lines.append(f"  {terminal_text(image.text)}")
            for shear in image.kept:
                before, kept, after = image.parts(shear)
                cut = " … ".join(terminal_text(part.strip()) for part in (before, after) if part.strip())
                lines.append(f"  {shear} keeps: {terminal_text(kept) if cut else 'all of it'}")
                lines += [f"  {shear} cuts off: {cut}"] if cut else []
        return "\n".join(lines)

    def gallery_markdown(self) -> str:
        """Pictures and texts side by side, for the UI."""
        rows = []
        for image in self.images:
            raw = ((RAW_SOURCE, image.raw_caption),) if image.raw_caption else ()
            texts = ((self.captioner, image.text or f"({image.reason}) {image.detail}"),)
            kept = tuple((f"kept by {shear}", image.parts(shear)[1]) for shear in image.kept)
            rows.append(GalleryRow(image.path, (*raw, *texts, *kept)))
        return gallery_markdown(rows)

    def _repr_markdown_(self) -> str:
        return self.gallery_markdown()

    def _repr_html_(self) -> str:
        raw = any(image.raw_caption for image in self.images)
        head = ["image", *([RAW_SOURCE] if raw else []), self.captioner, *(f"kept by {shear}" for shear in self.shears)]
        return table_html(head, (self._cells(image, raw) for image in self.images))

    def page_html(self) -> str:
        """The page: the same with a title, readable without other files."""
        return page_html(f"{self.captioner}: {counted(len(self.images), 'images')}", self.summary(), self._repr_html_())

    def _cells(self, image: TriedImage, raw: bool) -> list[str]:
        """An image's row of the table, as HTML."""
        cells = [f"{picture_html(image.path)}{text_html(image.image)}"]
        if raw:
            cells.append(text_html(image.raw_caption))
        if not image.text:
            return [*cells, text_html(f"{image.reason}: {image.detail}", "failed"), *("" for _ in self.shears)]
        cells.append(text_html(image.text))
        for shear in self.shears:
            before, kept, after = image.parts(shear)
            cells.append(f"{text_html(before, 'cut')}{text_html(kept)}{text_html(after, 'cut')}")
        return cells
