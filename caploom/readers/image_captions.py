"""Reads a folder of images with one file of captions: the released code's format, and most people's first data."""

from collections.abc import Callable, Iterator
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator

from caploom.readers.caption_rows import CaptionRows, check_files, not_an_object, suffix_of
from caploom.readers.caption_tables import TABLE_SUFFIXES, TableForm, caption_keys, table_records
from caploom.readers.img2dataset_names import check_template, downloaded_name
from caploom.readers.rewriting import RewriteRule, Rewriting
from caploom.readers.source_reader import SourceReader
from caploom.readers.source_row import SourceRow
from caploom.storage.paths import UriOrPath, name_of

_CAPTION_KEYS = ("caption", "captions", "raw_caption")
_OPTIONAL = ("rewrite", "columns", "quotes", "downloaded_as")


class ImageCaptionsReader(SourceReader):
    """Images below `root`; captions in JSON, JSON lines, CSV, TSV or Parquet, one record per image.

    Example:
        >>> [row.caption for row in ImageCaptionsReader(root="images", captions="captions.json").rows()]
        ['A cat.']
    """

    locations: ClassVar[frozenset[str]] = frozenset({"root", "captions"})
    reader: Literal["image_captions"] = "image_captions"
    root: UriOrPath = Field(description="Folder, or URL such as `s3://bucket/images`, that the image paths start from.")
    captions: UriOrPath = Field(
        description="`.json` (`[{image, caption}, ...]`), `.jsonl`, `.csv`, `.tsv` or `.parquet`; a file or a URL."
    )
    image_key: str = Field(default="image", description="Key or column of the image's path.")
    caption_key: str = Field(
        default="caption",
        description="Key or column of a caption or a list of captions, or a path into one, such as "
        "`conversations.1.value`; `none` of images without captions.",
    )
    rewrite: list[RewriteRule] = Field(
        default=[],
        description="`[{from: <beginning of a path in the file>, to: <its replacement>}]`; the first match counts.",
    )
    columns: list[str] | None = Field(
        default=None, description="Names of the columns of a CSV or TSV that has no header line: `[caption, url]`."
    )
    quotes: bool | None = Field(
        default=None,
        description='Whether `"` encloses fields of a CSV or TSV; by default not in a `.tsv` without a header line.',
    )
    downloaded_as: str | None = Field(
        default=None,
        description="The file name of a downloaded image when `image_key` has its URL: `img2dataset`, "
        "`crc32`, `url_name`, or a template such as `{index:09d}.jpg` or `{md5}.jpg`.",
    )

    @field_validator("downloaded_as")
    @classmethod
    def _the_template_is_known(cls, value: str | None) -> str | None:
        if value is not None:
            check_template(value)
        return value

    @model_validator(mode="after")
    def _columns_hold_image_and_caption(self) -> Self:
        if self.columns is None:
            return self
        if suffix_of(self.captions) not in (".csv", ".tsv"):
            raise ValueError(
                f"columns: only a `.csv` or `.tsv` can lack a header line, and captions is {self.captions}"
            )
        for key in (self.image_key, self._form.caption_key(self.columns) or next(iter(self.caption_keys), "")):
            if key and key not in self.columns:
                raise ValueError(f'columns: "{key}" is not among them; name it, or another `image_key`, `caption_key`')
        return self

    @property
    def caption_keys(self) -> tuple[str, ...]:
        """The caption keys: the configured one; without one, also the keys of Caploom's own tables."""
        return caption_keys(None if self.caption_key == "caption" else self.caption_key, _CAPTION_KEYS)

    @property
    def _form(self) -> TableForm:
        plain = self.columns is not None and suffix_of(self.captions) == ".tsv"
        return TableForm(
            image_key=self.image_key,
            caption_keys=self.caption_keys,
            columns=tuple(self.columns) if self.columns is not None else None,
            quotes=not plain if self.quotes is None else self.quotes,
        )

    def fingerprinted(self) -> dict[str, Any]:
        """The keys that the YAML sets: a key added later, and left out, leaves the source the same."""
        settings = self.model_dump(mode="json")
        unset = {key for key in _OPTIONAL if settings[key] in (None, [])}
        return {key: value for key, value in settings.items() if key not in unset}

    def prepare(self) -> None:
        """Check that file and folder exist; raises `SourceError`."""
        check_files(self.root, self.captions, TABLE_SUFFIXES)

    def rows(self, rewritten: Callable[[str], str] | None = None) -> Iterator[SourceRow]:
        """Every row of the file in its order, the bad ones with their reason; streams, for files of any size.

        A record with a list of captions gives a row for each, all with the record's number. `rewritten` maps a path of
        the file to the local path, instead of `rewrite`; `SourceRow.image` stays as in the file.
        Raises `SourceError` when the file cannot be read or has another form.
        """
        self.prepare()
        name = name_of(self.captions)
        if rewritten is None and self.rewrite:
            rewritten = Rewriting([(rule["from"], rule["to"]) for rule in self.rewrite])
        make, form = CaptionRows(name, self.root, rewritten), self._form
        for number, record in enumerate(table_records(self.captions, form), start=1):
            if isinstance(record, SourceRow):
                yield record
            elif not isinstance(record, dict):
                yield not_an_object(name, number, record)
            else:
                key, captions = form.captions_of(record)
                image = record.get(self.image_key)
                if self.downloaded_as is not None and isinstance(image, str) and image.strip():
                    image = downloaded_name(self.downloaded_as, number, image)
                yield from make.of_image(number, image, captions, image_key=self.image_key, caption_key=key)
