"""Pictures as the UI shows them: Markdown metadata."""

from collections.abc import Sequence

import dagster as dg

from caploom.questions.gallery import GalleryRow, data_uri, gallery_markdown


def picture(png: bytes, alt: str) -> dg.MarkdownMetadataValue:
    """A plot in the UI."""
    return dg.MetadataValue.md(f"![{alt}]({data_uri(png)})")


def gallery(rows: Sequence[GalleryRow]) -> dg.MarkdownMetadataValue:
    """Images with all their captions side by side in the UI."""
    return dg.MetadataValue.md(gallery_markdown(rows))
