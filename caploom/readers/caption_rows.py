"""What the readers of caption files share: an image's record becomes rows, each of them checked."""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from caploom.errors import SourceError
from caploom.readers.source_row import SourceRow


@dataclass(frozen=True)
class CaptionRows:
    """Makes the rows of a file's records.

    Attributes:
        file: the file's name, for sentences.
        root: the folder, resolved, that images lie in.
        rewritten: says where the image of a path of the file lies here; None leaves paths as they are.
    """

    file: str
    root: Path
    rewritten: Callable[[str], str] | None = None

    def of_image(
        self, number: int, image: Any, captions: Sequence[Any], *, image_key: str, caption_key: str
    ) -> Iterator[SourceRow]:
        """A row for each caption of the record `number`; one bad row where its image cannot be used or it has none."""
        where = f"{self.file}, row {number}"
        if not isinstance(image, str) or not image.strip():
            detail = f'{where}: "{image_key}" must be the path of an image and is {kind_of(image)}.'
            yield bad_row(number, "", "no_image_path", detail)
            return
        path = self._path(image)
        if isinstance(path, str):
            yield bad_row(number, image, "path_leaves_root", f"{where}: {path}")
            return
        if not captions:
            detail = f'{where}: "{caption_key}" is empty, so the image has no caption; caption it or leave it out.'
            yield bad_row(number, image, "no_caption", detail)
        for caption in captions:
            if not isinstance(caption, str):
                detail = f'{where}: "{caption_key}" must be text and is {kind_of(caption)}.'
                yield bad_row(number, image, "caption_not_text", detail)
                continue
            # A lone surrogate, which JSON can spell, has no UTF-8: no table can hold it.
            text = caption.encode("utf-8", "replace").decode("utf-8")
            if text.strip():
                yield SourceRow(row=number, image=image, caption=text, path=str(path))
            else:
                yield bad_row(number, image, "empty_caption", f"{where}: the caption is empty.")

    def _path(self, image: str) -> Path | str:
        """The image's path, or why it must not be opened."""
        place = self.rewritten(image) if self.rewritten else image
        # Resolved, so that neither `..` nor a link inside the root can reach a file outside it.
        path = Path(os.path.realpath(self.root / place)) if "\0" not in place else None
        if path is None or not path.is_relative_to(self.root):
            became = f", rewritten to {place!r}," if place != image else ""
            return f"the path {image!r}{became} leaves the image root {self.root}; images must lie inside it."
        return path


def bad_row(number: int, image: str, reason: str, detail: str) -> SourceRow:
    """A row that cannot be used: `reason` is a short word to count by, `detail` one sentence."""
    return SourceRow(row=number, image=image, caption=None, path=None, reason=reason, detail=detail)


def not_an_object(file: str, number: int, record: Any) -> SourceRow:
    """The row of a record that is no object."""
    detail = f"{file}, row {number}: it is {kind_of(record)} and must be an object."
    return bad_row(number, "", "row_not_an_object", detail)


def kind_of(value: Any) -> str:
    """What a value is, in words."""
    names = {dict: "an object", list: "a list", str: "empty text", bool: "true or false", type(None): "missing"}
    return names.get(type(value), "a number")


def check_files(root: Path, captions: Path, suffixes: Sequence[str]) -> None:
    """Check that folder and file are there and that the file is one that is read; raises `SourceError`."""
    if not root.is_dir():
        raise SourceError(f"{root}: the image root is no folder; correct `root`.")
    if not captions.is_file():
        raise SourceError(f"{captions}: there is no such file; correct `captions`.")
    if captions.suffix.lower() not in suffixes:
        raise SourceError(
            f"{captions}: captions are read from {', '.join(suffixes)} files; convert it or change `captions`."
        )


def json_items(path: Path, prefix: str) -> Iterator[Any]:
    """The items of an array in a JSON file (`prefix` as ijson has it), streamed, whatever the file's size.

    Where the JSON is damaged, the last item is a bad `SourceRow` that says so.
    """
    import ijson  # streams: a JSON of gigabytes is never held whole

    count = 0
    try:
        with path.open("rb") as file:
            for record in ijson.items(file, prefix, use_float=True):
                count += 1
                yield record
    except (ijson.JSONError, UnicodeDecodeError) as error:
        # The rows before the damage are good; what follows it cannot be counted, and that is said as one row.
        incomplete = any(word in str(error).lower() for word in ("premature", "incomplete"))  # by ijson's backend
        what = "ends in the middle" if incomplete else "is not valid JSON"
        detail = (
            f"{path.name}: the JSON {what} after row {count} ({str(error).strip().splitlines()[0]}); mend the file."
        )
        yield bad_row(count + 1, "", "json_ends_early" if incomplete else "invalid_json", detail)
