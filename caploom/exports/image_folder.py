"""Exports as a folder that Hugging Face `datasets` loads: the images and `metadata.jsonl`.

The images are hard links to the user's files where the file system allows it, else copies, or symbolic links when asked
for. Their names are their identities, so that no path of the user's can leave the folder.
"""

import json
import os
from collections import Counter
from pathlib import Path

from pydantic import Field

from caploom.errors import ExportError
from caploom.exports.format import ExportFormat, Written
from caploom.exports.images import ExportImage, ImageStream, image_extension
from caploom.images.location import Location
from caploom.storage.paths import is_url


class ImageFolder(ExportFormat):
    """`metadata.jsonl` with `file_name`, `text` (one caption, drawn) and all captions, and `images/`."""

    symlink: bool = Field(default=False, description="Symbolic links instead of hard links or copies.")
    seed: int = Field(default=0, description="Seed of the draw of the caption in `text`.")

    def write(self, images: ImageStream, folder: Path, final: str) -> Written:
        """See the module."""
        if self.symlink and is_url(final):
            raise ExportError(f"{final}: object storage has no symbolic links; leave `symlink` out.")
        written = Written(files=["metadata.jsonl"], how_to_read=[f'load_dataset("imagefolder", data_dir={final!r})'])
        placed: Counter[str] = Counter()
        with (folder / "metadata.jsonl").open("w", encoding="utf-8") as metadata:
            for image, data in images:
                # 256 folders: one with millions of files is slow on most file systems.
                name = f"images/{image.image_id[:2]}/{image.image_id}.{image_extension(data, image.path)}"
                target = folder / name
                target.parent.mkdir(parents=True, exist_ok=True)
                placed[_link_or_copy(image.path, data, target, symlink=self.symlink)] += 1
                metadata.write(json.dumps(self._line(name, image), ensure_ascii=False) + "\n")
                written.images += 1
                written.captions += len(image.captions)
        written.facts = dict(sorted(placed.items()))
        return written

    def _line(self, name: str, image: ExportImage) -> dict[str, object]:
        return {
            "file_name": name,
            "text": image.captions[image.draw(self.seed)],
            "captions": image.captions,
            "sources": image.sources,
            "weights": image.rounded_weights(),
            "image_id": image.image_id,
            "original": image.image,
        }


def _link_or_copy(path: str, data: bytes, target: Path, *, symlink: bool) -> str:
    if target.is_symlink() or target.exists():
        return "repeated"  # of the same identity; writing to a hard link would write to the user's file
    if Location.parse(path).offset is not None:  # in a container: there is no file of its own to link to
        target.write_bytes(data)
        return "copies"
    source = Path(path)
    if symlink:
        target.symlink_to(source)
        return "symbolic_links"
    try:
        # The real file: a hard link to a symbolic link would be one more symbolic link.
        os.link(source.resolve(), target)
    except OSError:
        # Another file system, one without hard links, or a file of another owner: in each case it is copied.
        target.write_bytes(data)
        return "copies"
    return "hard_links"
