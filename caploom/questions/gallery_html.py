"""Pictures with their texts as HTML that needs no other file: for notebooks, and for pages in the store."""

from collections.abc import Iterable, Sequence
from html import escape

from caploom.questions.gallery import GalleryRow, thumbnail_uri

_STYLE = """
.caploom-gallery { border-collapse: collapse; font: 14px/1.45 system-ui, sans-serif; }
.caploom-gallery th { text-align: left; font-weight: 600; border-bottom: 1px solid #8888; padding: 4px 12px; }
.caploom-gallery td { text-align: left; vertical-align: top; max-width: 28em; padding: 8px 12px;
    border-bottom: 1px solid #8883; white-space: pre-wrap; overflow-wrap: anywhere; }
.caploom-gallery img { border-radius: 3px; display: block; }
.caploom-gallery .cut { opacity: 0.45; }
.caploom-gallery .failed { color: #b3261e; }
"""

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>body {{ margin: 2em; font: 15px/1.5 system-ui, sans-serif; }}</style>
</head>
<body>
<h1>{title}</h1>
<p>{words}</p>
{body}
</body>
</html>
"""


def text_html(text: str, style: str = "") -> str:
    """Any text as HTML that shows it as it is; `style` is "", "cut" (fainter) or "failed"."""
    escaped = escape(text)
    return f'<span class="{style}">{escaped}</span>' if style and text else escaped


def picture_html(path: str) -> str:
    """A small picture, or a word where it is gone."""
    uri = thumbnail_uri(path)
    return f'<img src="{uri}" alt="image">' if uri else "(gone)"


def table_html(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table with its style; `head` is text, the cells are HTML."""
    titles = "".join(f"<th>{escape(title)}</th>" for title in head)
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>\n" for row in rows)
    table = f'<table class="caploom-gallery">\n<thead><tr>{titles}</tr></thead>\n<tbody>\n{body}</tbody>\n</table>'
    return f"<style>{_STYLE}</style>\n{table}"


def page_html(title: str, words: str, body: str) -> str:
    """A whole page, which may load nothing and run nothing; `title` and `words` are text, `body` is HTML."""
    return _PAGE.format(title=escape(title), words=escape(words), body=body)


def gallery_html(rows: Sequence[GalleryRow]) -> str:
    """A table with one row per image and one column per source. Captions are shown as text, whatever is in them."""
    sources = list(dict.fromkeys(source for row in rows for source, _ in row.captions))
    shown = []
    for row in rows:
        texts = (
            "<br>".join(text_html(text) for origin, text in row.captions if origin == source) for source in sources
        )
        shown.append([picture_html(row.path), *texts])
    return table_html(["image", *sources], shown)
