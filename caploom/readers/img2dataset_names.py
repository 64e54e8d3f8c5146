"""Names that downloaders give to images: finds the file of a URL.

The Conceptual Captions and similar sets are tables of URLs. `img2dataset` below is that program's naming of files;
the script that ViLBERT and many others used names a file by the CRC-32 of its URL, without an ending.
"""

import hashlib
import zlib
from string import Formatter
from urllib.parse import unquote, urlsplit

SHORTCUTS = {"img2dataset": "{shard:05d}/{index:09d}.jpg", "url_name": "{name}", "crc32": "{crc32}"}
"""Templates by name: `img2dataset` with its 10,000 images per folder."""

FIELDS = ("index", "row", "shard", "name", "stem", "suffix", "md5", "sha1", "sha256", "crc32")
_SHARD = 10_000  # img2dataset's default of `number_sample_per_shard`


def check_template(template: str) -> None:
    """Raise `ValueError` unless the template's fields are known and at least one is there."""
    try:
        used = [field for _, field, _, _ in Formatter().parse(SHORTCUTS.get(template, template)) if field is not None]
        unknown = [field for field in used if field not in FIELDS]
        if not unknown:
            downloaded_name(template, 1, "http://example.org/a.jpg")
    except ValueError as error:
        raise ValueError(f'the template "{template}" cannot be read ({error}); such as "{{index:09d}}.jpg"') from None
    if unknown or not used:
        what = f"has the field {{{unknown[0]}}}" if unknown else "has no field"
        known = ", ".join(f"{{{field}}}" for field in FIELDS)
        raise ValueError(f'the template "{template}" {what}; fields: {known}; or one of {", ".join(SHORTCUTS)} instead')


def downloaded_name(template: str, row: int, url: str) -> str:
    """The path, below the download's folder, of the image of a URL in a row (from 1) of its table."""
    data = url.encode("utf-8", "surrogatepass")
    try:
        path = urlsplit(url).path
    except ValueError:  # brackets that are not an IPv6 address
        path = url
    name = unquote(path.rpartition("/")[2])
    stem, dot, suffix = name.rpartition(".")
    return SHORTCUTS.get(template, template).format(
        index=row - 1,
        row=row,
        shard=(row - 1) // _SHARD,
        name=name,
        stem=stem if dot else name,
        suffix=dot + suffix if dot else "",
        md5=hashlib.md5(data, usedforsecurity=False).hexdigest(),
        sha1=hashlib.sha1(data, usedforsecurity=False).hexdigest(),
        sha256=hashlib.sha256(data).hexdigest(),
        crc32=zlib.crc32(data),
    )
