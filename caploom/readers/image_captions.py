"""Reads a folder of images with one JSON or CSV file of captions: the seed's format, and most people's first data."""

import csv
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from caploom.errors import SourceError
from caploom.readers.source_row import SourceRow
from caploom.settings import Settings, resolve_path


class ImageCaptionsReader(Settings):
    """Images below `root`; captions in a JSON array of objects, or a CSV/TSV with a header line."""

    reader: Literal["image_captions"] = "image_captions"
    root: Annotated[Path, BeforeValidator(resolve_path)] = Field(description="Folder that the image paths start from.")
    captions: Annotated[Path, BeforeValidator(resolve_path)] = Field(
        description="`.json` (`[{image, caption}, ...]`), `.csv` or `.tsv`."
    )
    image_key: str = Field(default="image", description="Key or column that holds the image's path.")
    caption_key: str = Field(default="caption", description="Key or column that holds the caption.")

    @property
    def attribution(self) -> str | None:
        """What pages that show the pictures must say; nothing is known of a user's own."""
        return None

    def prepare(self) -> None:
        """Check that file and folder are there; raises `SourceError`."""
        if not self.root.is_dir():
            raise SourceError(f"{self.root}: the image root is no folder; correct `root`.")
        if not self.captions.is_file():
            raise SourceError(f"{self.captions}: there is no such file; correct `captions`.")
        if self.captions.suffix.lower() not in _PARSERS:
            raise SourceError(
                f"{self.captions}: captions are read from {', '.join(_PARSERS)} files; convert it or change `captions`."
            )

    def rows(self, rewritten: Callable[[str], str] | None = None) -> Iterator[SourceRow]:
        """Every row of the file in its order, the bad ones with their reason; streams, whatever the file's size.

        `rewritten` says where the image of a path of the file lies here; `SourceRow.image` stays as the file has it.
        """
        self.prepare()
        root = self.root.resolve()
        parse = _PARSERS[self.captions.suffix.lower()]
        for number, record in enumerate(parse(self.captions, self), start=1):
            yield record if isinstance(record, SourceRow) else self._row(number, record, root, rewritten)

    def _row(self, number: int, record: Any, root: Path, rewritten: Callable[[str], str] | None) -> SourceRow:
        where = f"{self.captions.name}, row {number}"
        if not isinstance(record, dict):
            return _bad(number, "", "row_not_an_object", f"{where}: it is {_kind(record)} and must be an object.")
        image, caption = record.get(self.image_key), record.get(self.caption_key)
        if not isinstance(image, str) or not image.strip():
            detail = f'{where}: "{self.image_key}" must be the path of an image and is {_kind(image)}.'
            return _bad(number, "", "no_image_path", detail)
        place = rewritten(image) if rewritten else image
        # Resolved, so that neither `..` nor a link inside the root can reach a file outside it.
        path = Path(os.path.realpath(root / place)) if "\0" not in place else None
        if path is None or not path.is_relative_to(root):
            became = f", rewritten to {place!r}," if place != image else ""
            detail = f"{where}: the path {image!r}{became} leaves the image root {root}; images must lie inside it."
            return _bad(number, image, "path_leaves_root", detail)
        if not isinstance(caption, str):
            detail = f'{where}: "{self.caption_key}" must be text and is {_kind(caption)}.'
            return _bad(number, image, "caption_not_text", detail)
        # A lone surrogate, which JSON can spell, has no UTF-8: no table can hold it.
        caption = caption.encode("utf-8", "replace").decode("utf-8")
        if not caption.strip():
            return _bad(number, image, "empty_caption", f"{where}: the caption is empty.")
        return SourceRow(row=number, image=image, caption=caption, path=str(path))


def _bad(number: int, image: str, reason: str, detail: str) -> SourceRow:
    return SourceRow(row=number, image=image, caption=None, path=None, reason=reason, detail=detail)


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "empty text", bool: "true or false", type(None): "missing"}
    return names.get(type(value), "a number")


def _json_records(path: Path, reader: ImageCaptionsReader) -> Iterator[Any]:
    import ijson  # streams: a JSON of gigabytes is never held whole

    count = 0
    try:
        with path.open("rb") as file:
            for record in ijson.items(file, "item", use_float=True):
                count += 1
                yield record
    except (ijson.JSONError, UnicodeDecodeError) as error:
        # The rows before the damage are good; what follows it cannot be counted, and that is said as one row.
        incomplete = any(word in str(error).lower() for word in ("premature", "incomplete"))  # by ijson's backend
        what = "ends in the middle" if incomplete else "is not valid JSON"
        detail = (
            f"{path.name}: the JSON {what} after row {count} ({str(error).strip().splitlines()[0]}); mend the file."
        )
        yield _bad(count + 1, "", "json_ends_early" if incomplete else "invalid_json", detail)
        return
    if count == 0:
        yield from _no_array(path)


def _no_array(path: Path) -> Iterator[Any]:
    with path.open("rb") as file:
        start = file.read(64).lstrip()
    if not start.startswith(b"["):
        raise SourceError(
            f"{path}: it must hold a JSON array of objects, [{{...}}, ...], and starts with {start[:10]!r}."
        )
    yield from ()


def _csv_records(path: Path, reader: ImageCaptionsReader) -> Iterator[Any]:
    delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
        lines = csv.DictReader(file, delimiter=delimiter)
        count = 0
        try:
            for key in (reader.image_key, reader.caption_key):
                if key not in (lines.fieldnames or []):
                    columns = ", ".join(lines.fieldnames or []) or "none"
                    raise SourceError(
                        f'{path}: the header has no column "{key}" (columns: {columns}); name it in the YAML.'
                    )
            for line in lines:
                count += 1
                yield line
        except csv.Error as error:  # mostly an opening quote that nothing closes
            detail = f"{path.name}: it cannot be read on after row {count} ({error}); mend the file."
            yield _bad(count + 1, "", "invalid_csv", detail)


_PARSERS = {".json": _json_records, ".csv": _csv_records, ".tsv": _csv_records}
