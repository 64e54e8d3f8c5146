"""Pictures with their captions, as a notebook shows them."""

from dataclasses import dataclass

from caploom.common.text import terminal_text
from caploom.questions.gallery import GalleryRow, gallery_markdown
from caploom.questions.gallery_html import gallery_html


@dataclass(frozen=True, repr=False)
class Gallery:
    """Images with all captions of each: a table of pictures in a notebook, lines of text elsewhere."""

    rows: tuple[GalleryRow, ...]

    def __len__(self) -> int:
        return len(self.rows)

    def __repr__(self) -> str:
        lines = []
        for row in self.rows:
            lines.append(terminal_text(row.path))
            lines += [f"  {terminal_text(source)}: {terminal_text(text)}" for source, text in row.captions]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        return gallery_html(self.rows)

    def _repr_markdown_(self) -> str:
        return gallery_markdown(self.rows)
