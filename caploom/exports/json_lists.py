"""Exports as JSON lists of `{"image", "caption"}`: the released code's format and BLIP's."""

import json
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from pydantic import Field

from caploom.common.names import NAME_PATTERN
from caploom.errors import ExportError
from caploom.exports.format import CaptionLines, Written
from caploom.exports.images import ExportImage, ImageStream

_Write = Callable[[str, str], None]


class ReleasedJson(CaptionLines):
    """`merged.json`, and with `per_captioner` also `captioners/<source>.json`; images as the user wrote them."""

    per_captioner: bool = Field(default=False, description="Also one file per captioner and one for the raw captions.")

    def write(self, images: ImageStream, folder: Path, final: str) -> Written:
        """See the class."""
        written = Written(files=["merged.json"], how_to_read=[f"json.load(open({f'{final}/merged.json'!r}))"])
        with ExitStack() as files:
            write_merged = files.enter_context(json_list(folder / "merged.json"))
            by_source: dict[str, _Write] = {}
            for image, _ in images:
                written.images += 1
                for caption, source in self.entries(image, images):
                    write_merged(image.image, caption)
                    written.captions += 1
                    if not self.per_captioner:
                        continue
                    if source not in by_source:
                        written.files.append(_file_of(source, folder))
                        by_source[source] = files.enter_context(json_list(folder / written.files[-1]))
                    by_source[source](image.image, caption)
        written.files.sort()
        return written


class Blip(CaptionLines):
    """`blip.json` as BLIP's `pretrain_dataset` loads it: absolute paths, or relative to `image_root`.

    BLIP's own pre-training opens `image` unchanged; its fine-tuning data sets, and LAVIS, join it to an image root.
    """

    image_root: Path | None = Field(
        default=None, description="Folder that the paths are relative to; images outside it are skipped."
    )

    def write(self, images: ImageStream, folder: Path, final: str) -> Written:
        """See the class."""
        root = None if self.image_root is None else self.image_root.expanduser().absolute()
        if root is not None and not root.is_dir():
            raise ExportError(f"{root}: this image root is not a folder; name the folder of the images.")
        written = Written(files=["blip.json"], how_to_read=[f"train_file: [{f'{final}/blip.json'!r}]"])
        with json_list(folder / "blip.json") as write:
            for image, data in images:
                name = images.file_of(image, data, folder, final) if root is None else _below(root, image)
                if name is None:
                    if root is not None:
                        detail = f"{image.path}: it is not below the image root {root}."
                        images.skip(image, "outside_image_root", detail)
                    continue
                written.images += 1
                for caption, _ in self.entries(image, images):
                    write(name, caption)
                    written.captions += 1
        return written


def _below(root: Path, image: ExportImage) -> str | None:
    """The image's path relative to the root, without a `..`; null when it lies elsewhere."""
    path = Path(image.path)
    for candidate, base in ((path, root), (path.resolve(), root.resolve())):
        if candidate.is_relative_to(base) and ".." not in candidate.relative_to(base).parts:
            return candidate.relative_to(base).as_posix()
    return None


def _file_of(source: str, folder: Path) -> str:
    if not re.fullmatch(NAME_PATTERN, source):
        raise ExportError(
            f'The source "{source}" of this training set cannot name a file; export without per_captioner.'
        )
    (folder / "captioners").mkdir(exist_ok=True)
    return f"captioners/{source}.json"


@contextmanager
def json_list(path: Path) -> Iterator[_Write]:
    """Streams `[{"image", "caption"}, ...]` in UTF-8, one entry per line."""
    encode = json.JSONEncoder(ensure_ascii=False).encode
    with path.open("w", encoding="utf-8") as file:
        separator = "[\n"

        def write(image: str, caption: str) -> None:
            nonlocal separator
            file.write(f'{separator}{{"image": {encode(image)}, "caption": {encode(caption)}}}')
            separator = ",\n"

        yield write
        file.write("[]\n" if separator == "[\n" else "\n]\n")
