"""A hash of a source's content, without reading images: a changed source is another source."""

import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from caploom.common.hashing import content_version, fingerprint
from caploom.readers.caption_rows import reading
from caploom.readers.coco import CocoReader
from caploom.readers.image_captions import ImageCaptionsReader
from caploom.readers.karpathy import KarpathyReader

if TYPE_CHECKING:
    from caploom.readers.registry import Reader


def source_version(reader: "Reader", recorded: Mapping[str, Any] | None = None) -> str:
    """The hash of a caption file's bytes (COCO's 144 MB are quick to hash and slow to parse), or else of its rows.

    The reader's settings are part of it: the present ones, or those `recorded` of it before its files moved. Raises
    `SourceError` when folder or file are missing.
    """
    settings = recorded if recorded is not None else reader.fingerprinted()
    if isinstance(reader, ImageCaptionsReader | KarpathyReader | CocoReader):
        reader.prepare()
        with reading(reader.captions) as file:
            digest = hashlib.sha256()
            while block := file.read(2**20):
                digest.update(block)
        return fingerprint([settings, digest.hexdigest()])
    return fingerprint(
        [settings, content_version(f"{row.image}\t{row.caption}\t{row.reason}" for row in reader.rows())]
    )
