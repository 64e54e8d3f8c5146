"""The text file next to an image: its first line is the caption; lines `key=value` are metadata."""

import codecs
import re
from collections.abc import Collection
from dataclasses import dataclass

from caploom.errors import SourceError
from caploom.storage.paths import is_url, open_uri

LONGEST_TEXT = 16 * 2**20  # bytes
_MOSTLY = 2**14
_KEYED = re.compile(r"([A-Za-z][A-Za-z0-9_-]*)=(.*)", re.DOTALL)
_UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


@dataclass(frozen=True, slots=True)
class Sidecar:
    """A text's captions, the first line's before translations; or its fault, as a reason and a sentence."""

    captions: tuple[str, ...] = ()
    fault: tuple[str, str] | None = None


def read_sidecar(uri: str, translations: Collection[str] = ()) -> Sidecar:
    """Read an image's text.

    The first line that is not empty is the caption. Of the lines `key=value`, those whose key is one of `translations`
    (in lower case) are captions too, the first line among them. Raises `SourceError` when a storage service
    fails.
    """
    try:
        with open_uri(uri) as file:
            data = file.read(_MOSTLY)  # `read` allocates as much as is requested
            if len(data) == _MOSTLY:
                data += file.read(LONGEST_TEXT + 1 - _MOSTLY)
    except (SourceError, OSError) as error:
        if is_url(uri):  # a failing service is not this image's fault
            raise
        return Sidecar(fault=("unreadable_text", str(error)))
    if len(data) > LONGEST_TEXT:
        detail = f"{uri!r}: it is longer than {LONGEST_TEXT // 2**20} MiB, which no caption is; correct or remove it."
        return Sidecar(fault=("text_too_long", detail))
    try:
        text = data.decode("utf-16" if data.startswith(_UTF_16) else "utf-8-sig")
    except UnicodeDecodeError:
        return Sidecar(fault=("undecodable_text", f"{uri!r}: it is not UTF-8; convert it."))
    return Sidecar(tuple(_captions(text, translations)))


def _captions(text: str, translations: Collection[str]) -> list[str]:
    caption: list[str] = []
    translated: list[str] = []
    is_first = True
    for line in (each.strip() for each in text.splitlines()):
        if not line:
            continue
        keyed = _KEYED.fullmatch(line)
        if keyed and keyed[1].lower() in translations:
            translated += [value for value in [keyed[2].strip()] if value]
        elif is_first:
            caption.append(line)
        is_first = False
    return caption + translated
