"""Reads COCO's own caption files, such as `captions_train2017.json`."""

from collections.abc import Iterator
from typing import Any, ClassVar, Literal

from pydantic import Field

from caploom.errors import SourceError
from caploom.readers.caption_rows import CaptionRows, bad_row, check_files, json_items, kind_of, not_an_object
from caploom.readers.source_reader import SourceReader
from caploom.readers.source_row import SourceRow
from caploom.storage.paths import UriOrPath, name_of


class CocoReader(SourceReader):
    """`{"images": [{id, file_name}], "annotations": [{image_id, caption}]}`, in any order; images below `root`.

    Example:
        >>> reader = CocoReader(reader="coco", root=Path("images"), captions=Path("coco.json"))
        >>> [row.caption for row in reader.rows()]
        ['A cat.']
    """

    locations: ClassVar[frozenset[str]] = frozenset({"root", "captions"})
    reader: Literal["coco"]
    root: UriOrPath = Field(description="Folder or URL that each `file_name` starts from, such as `train2017`.")
    captions: UriOrPath = Field(description="Such as `captions_train2017.json`; a file or a URL.")

    def prepare(self) -> None:
        """Check that file and folder exist; raises `SourceError`."""
        check_files(self.root, self.captions, [".json"])

    def rows(self) -> Iterator[SourceRow]:
        """A row for each annotation in the file's order, `row` its position; then the images that have none.

        Streams the file twice, since annotations may come before the images; only the images' ids and names are kept.
        Raises `SourceError` when the file has another form.
        """
        self.prepare()
        file = name_of(self.captions)
        make = CaptionRows(file, self.root)
        names: dict[Any, tuple[int, Any]] = {}
        bad = 0
        for row in self._images(names):
            bad += 1
            yield row
        captioned = set()
        count = 0
        for number, record in enumerate(json_items(self.captions, "annotations.item"), start=1):
            count = number
            if isinstance(record, SourceRow):
                yield record
            elif not isinstance(record, dict):
                yield not_an_object(file, number, record)
            elif not _is_id(image_id := record.get("image_id")) or image_id not in names:
                detail = f'{file}, row {number}: "images" has no image with the id {image_id!r}.'
                yield bad_row(number, "", "no_image", detail)
            else:
                captioned.add(image_id)
                caption = [record.get("caption")]
                image = names[image_id][1]
                yield from make.of_image(number, image, caption, image_key="file_name", caption_key="caption")
        if not names and not count and not bad:
            raise SourceError(
                f'{self.captions}: it has neither "images" nor "annotations", so it is not a COCO caption file; '
                "another form may need another `reader`."
            )
        for image_id, (number, image) in names.items():
            if image_id not in captioned:
                yield from make.of_image(number, image, [], image_key="file_name", caption_key="annotations")

    def _images(self, names: dict[Any, tuple[int, Any]]) -> Iterator[SourceRow]:
        """Fill in the path and name of each image by its id; yields the bad ones."""
        file = name_of(self.captions)
        for number, record in enumerate(json_items(self.captions, "images.item"), start=1):
            if isinstance(record, SourceRow):
                continue  # damage: reading the annotations meets it again and reports it once
            if not isinstance(record, dict):
                yield not_an_object(f"{file}, images", number, record)
            elif not _is_id(image_id := record.get("id")):
                detail = f'{file}, images, row {number}: "id" must be a number or text but is {kind_of(image_id)}.'
                yield bad_row(number, "", "no_image_id", detail)
            elif image_id in names:
                detail = f"{file}, images, row {number}: the id {image_id!r} is already in row {names[image_id][0]}."
                yield bad_row(number, "", "repeated_id", detail)
            else:
                names[image_id] = (number, record.get("file_name"))


def _is_id(value: Any) -> bool:
    return isinstance(value, int | str) and not isinstance(value, bool)
