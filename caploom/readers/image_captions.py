"""Reads a folder of images with one JSON or CSV file of captions: the seed's format, and most people's first data."""

import csv
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from caploom.errors import SourceError
from caploom.readers.caption_rows import CaptionRows, bad_row, check_files, json_items, not_an_object
from caploom.readers.source_row import SourceRow
from caploom.settings import Settings, resolve_path


class ImageCaptionsReader(Settings):
    """Images below `root`; captions in a JSON array of objects, a CSV/TSV with a header line, or a Parquet table."""

    reader: Literal["image_captions"] = "image_captions"
    root: Annotated[Path, BeforeValidator(resolve_path)] = Field(description="Folder that the image paths start from.")
    captions: Annotated[Path, BeforeValidator(resolve_path)] = Field(
        description="`.json` (`[{image, caption}, ...]`), `.csv`, `.tsv` or `.parquet`."
    )
    image_key: str = Field(default="image", description="Key or column that holds the image's path.")
    caption_key: str = Field(default="caption", description="Key or column that holds a caption or a list of them.")

    @property
    def attribution(self) -> str | None:
        """What pages that show the pictures must say; nothing is known of a user's own."""
        return None

    def prepare(self) -> None:
        """Check that file and folder are there; raises `SourceError`."""
        check_files(self.root, self.captions, list(_PARSERS))

    def rows(self, rewritten: Callable[[str], str] | None = None) -> Iterator[SourceRow]:
        """Every row of the file in its order, the bad ones with their reason; streams, whatever the file's size.

        A record with a list of captions gives a row for each, all with the record's number. `rewritten` says where the
        image of a path of the file lies here; `SourceRow.image` stays as the file has it.
        """
        self.prepare()
        make = CaptionRows(self.captions.name, self.root.resolve(), rewritten)
        parse = _PARSERS[self.captions.suffix.lower()]
        for number, record in enumerate(parse(self.captions, self), start=1):
            if isinstance(record, SourceRow):
                yield record
            elif not isinstance(record, dict):
                yield not_an_object(self.captions.name, number, record)
            else:
                key = next((key for key in self.caption_keys if key in record), self.caption_key)
                said = record.get(key)
                captions = said if isinstance(said, list) else [said]
                image = record.get(self.image_key)
                yield from make.of_image(number, image, captions, image_key=self.image_key, caption_key=key)

    @property
    def caption_keys(self) -> tuple[str, ...]:
        """Where captions may stand: the key that was named; unless one was, also what Caploom's own tables call it."""
        return ("caption", "captions", "raw_caption") if self.caption_key == "caption" else (self.caption_key,)


def _json_records(path: Path, reader: ImageCaptionsReader) -> Iterator[Any]:
    count = 0
    for record in json_items(path, "item"):
        count += 1
        yield record
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
            yield bad_row(count + 1, "", "invalid_csv", detail)


def _parquet_records(path: Path, reader: ImageCaptionsReader) -> Iterator[Any]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            names = file.schema_arrow.names
            key = next((key for key in reader.caption_keys if key in names), reader.caption_key)
            for column in (reader.image_key, key):
                if column not in names:
                    raise SourceError(
                        f'{path}: it has no column "{column}" (columns: {", ".join(names)}); name it in the YAML.'
                    )
            for batch in file.iter_batches(batch_size=4096, columns=[reader.image_key, key], use_threads=False):
                yield from batch.to_pylist()
    except (OSError, pa.ArrowException) as error:
        raise SourceError(f"{path}: it cannot be read as Parquet ({str(error).splitlines()[0]}); mend it.") from None


_PARSERS = {".json": _json_records, ".csv": _csv_records, ".tsv": _csv_records, ".parquet": _parquet_records}
