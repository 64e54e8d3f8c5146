"""Reads Karpathy and Fei-Fei's split files (2015): the usual form of COCO, Flickr30K and Flickr8K."""

import os
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any, ClassVar, Literal

from pydantic import Field, PositiveInt

from caploom.common.settings import nearest
from caploom.errors import SourceError
from caploom.readers.caption_rows import CaptionRows, bad_row, check_files, json_items, not_an_object, reading
from caploom.readers.source_reader import SourceReader
from caploom.readers.source_row import SourceRow
from caploom.storage.paths import UriOrPath, name_of

_TOP_LEVEL_BYTES = 4096
_DATASET = re.compile(rb'"dataset"\s*:\s*"([^"\\]*)"')


class KarpathyReader(SourceReader):
    """`{"images": [{filename, filepath, split, sentences: [{raw}, ...]}], "dataset": ...}`, images below `root`.

    Example:
        >>> reader = KarpathyReader(reader="karpathy", root=Path(), captions=Path("karpathy.json"))
        >>> [row.caption for row in reader.rows()]
        ['A cat.']
    """

    locations: ClassVar[frozenset[str]] = frozenset({"root", "captions"})
    reader: Literal["karpathy"]
    root: UriOrPath = Field(
        description="Folder or URL that the image paths (`filepath/filename`, or `filename` alone) start from."
    )
    captions: UriOrPath = Field(description="Such as `dataset_coco.json`; a file or a URL.")
    split: str | list[str] = Field(
        default="test", description="Which images: `train`, `val`, `test`; or a list, such as `[train, restval]`."
    )
    captions_per_image: Literal["all"] | PositiveInt = Field(
        default="all", description="`all`, or the number of captions used per image; an image with fewer fails."
    )

    @property
    def splits(self) -> list[str]:
        """The splits as a list."""
        return [self.split] if isinstance(self.split, str) else self.split

    def prepare(self) -> None:
        """Check that file and folder exist; raises `SourceError`."""
        check_files(self.root, self.captions, [".json"])

    def rows(self) -> Iterator[SourceRow]:
        """A row for each caption of the splits' images, in the file's order; `row` is the image's position in the file.

        Raises `SourceError` when the file has another form or no image of these splits.
        """
        self.prepare()
        make = CaptionRows(name_of(self.captions), self.root)
        met: Counter[str] = Counter()
        bad = 0
        for number, record in enumerate(json_items(self.captions, "images.item"), start=1):
            if isinstance(record, SourceRow):
                bad += 1
                yield record
            elif not isinstance(record, dict):
                bad += 1
                yield not_an_object(name_of(self.captions), number, record)
            elif not isinstance(record.get("split"), str):
                bad += 1
                detail = f'{name_of(self.captions)}, row {number}: it has no "split", so its use is unknown.'
                yield bad_row(number, str(record.get("filename") or ""), "no_split", detail)
            else:
                met[record["split"]] += 1
                if record["split"] in self.splits:
                    yield from self._of_image(number, record, make)
        self._check_splits(met, bad)

    def _of_image(self, number: int, record: dict[str, Any], make: CaptionRows) -> Iterator[SourceRow]:
        folder, name = record.get("filepath"), record.get("filename")
        image = f"{folder}/{name}" if isinstance(folder, str) and folder and isinstance(name, str) and name else name
        sentences = record.get("sentences")
        listed = sentences if isinstance(sentences, list) else []
        texts = [each.get("raw") if isinstance(each, dict) else each for each in listed]
        wanted = len(texts) if self.captions_per_image == "all" else self.captions_per_image
        if texts and len(texts) < wanted and isinstance(image, str):
            detail = (
                f"{name_of(self.captions)}, row {number}: {image} has {len(texts)} of the {wanted} captions that "
                "`captions_per_image` requires; require fewer or leave the image out."
            )
            yield bad_row(number, image, "too_few_captions", detail)
        else:
            yield from make.of_image(number, image, texts[:wanted], image_key="filename", caption_key="sentences")

    def _check_splits(self, met: Counter[str], bad: int) -> None:
        if not met and not bad:
            raise SourceError(
                f'{self.captions}: it has no images under "images", so it is not a Karpathy split file; '
                "another form may need another `reader`."
            )
        for split in self.splits:
            if met and split not in met:
                known = ", ".join(f"{name} ({count:,})" for name, count in met.items())
                raise SourceError(
                    f'{self.captions}: it has no image of the split "{split}"; its splits and their images: {known}'
                    f"{nearest(split, list(met))}."
                )

    def dataset(self) -> str | None:
        """The file's name for itself, such as "coco" or "flickr30k", which comes before or after its images."""
        with reading(self.captions) as file:
            head = file.read(_TOP_LEVEL_BYTES).partition(b"[")[0]
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - _TOP_LEVEL_BYTES))
            tail = file.read().rpartition(b"]")[2]
        found = _DATASET.search(head) or _DATASET.search(tail)
        return found[1].decode("utf-8", "replace") if found else None
