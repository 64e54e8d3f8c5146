"""What a table says about images: which reader it is for, which columns have the images and the captions."""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from caploom.errors import SourceError
from caploom.readers.caption_rows import reading, suffix_of
from caploom.scaffold.table_records import (
    MOST_RECORDS,
    FirstRecords,
    first_items,
    first_records,
    is_web_address,
    looks_like_an_image,
)

_IMAGE_COLUMNS = (
    "image image_path img_path file_name filename file filepath path img images url image_url img_url URL"
).split()
_CAPTION_COLUMNS = (
    "caption captions raw_caption text TEXT sentences sentence conversations title description alt_text alt"
).split()
_USUAL_CAPTIONS = ("caption", "captions", "raw_caption")  # what the reader finds by itself
_ANSWER = "1.value"
"""Where LLaVA's conversations have the answer to the first question."""

_WORDS_OF_CAPTIONS = 1.5  # the mean of a column that has captions, whatever it is called
_SPLITS_LOOKED_AT = 20_000


@dataclass(frozen=True)
class TableLook:
    """What a table is.

    Attributes:
        reader: the reader that reads it.
        what: what people call it.
        keys: the reader's keys, other than the places of the table and of its images.
        images: rows (from 1) and the image that each names, by path or URL, of its first records.
        has_captions: whether it has a column for them.
        splits: images by split, of Karpathy's files.
        remark: what a person should know.
    """

    reader: str
    what: str
    keys: dict[str, Any]
    images: list[tuple[int, str]]
    has_captions: bool = True
    splits: Counter[str] = field(default_factory=Counter)
    remark: str | None = None

    @property
    def of_urls(self) -> bool:
        """Whether it names images by their URLs, and not by their paths."""
        return sum(is_web_address(image) for _, image in self.images) * 2 > len(self.images)


def look_at_table(uri: str) -> TableLook:
    """What this table is. Raises `SourceError` when it is damaged, or names no images."""
    if suffix_of(uri) != ".json":
        return _of_records(uri, first_records(uri))
    with reading(uri) as file:
        start = file.read(256).removeprefix(b"\xef\xbb\xbf").lstrip()[:1]
    if start == b"[":
        return _of_records(uri, first_records(uri))
    if start == b"{":
        return _of_object(uri)
    raise SourceError(f"{uri}: it is not JSON: a table is an array of objects, [{{...}}, ...]; repair or convert it.")


def _of_object(uri: str) -> TableLook:
    images = first_items(uri, "images")
    if images and isinstance(images[0].get("sentences"), list):
        return _of_karpathy(uri)
    annotations = first_items(uri, "annotations", most=5) if images else []
    names = [(at, each["file_name"]) for at, each in enumerate(images, 1) if isinstance(each.get("file_name"), str)]
    if names and any("caption" in each for each in annotations):
        return TableLook("coco", "COCO's captions", {}, names)
    if names and annotations:
        raise SourceError(f"{uri}: its annotations have no captions; name COCO's captions_*.json, or the image folder.")
    raise SourceError(
        f"{uri}: it is a JSON object, but neither COCO's ({{images, annotations}}) nor Karpathy's ({{images: "
        "[{filename, sentences}]}); convert it to an array of objects, [{image, caption}, ...]."
    )


def _of_karpathy(uri: str) -> TableLook:
    images: list[tuple[int, str]] = []
    splits = Counter[str]()
    for number, record in enumerate(first_items(uri, "images", most=_SPLITS_LOOKED_AT), 1):
        folder, name, split = (record.get(key) for key in ("filepath", "filename", "split"))
        splits[str(split)] += 1
        if isinstance(name, str) and len(images) < MOST_RECORDS:
            images.append((number, f"{folder}/{name}" if folder else name))
    if not images:
        raise SourceError(f'{uri}: none of its "images" has a "filename", so it leads to no file; correct it.')
    chosen = [split for split in ("train", "restval") if split in splits] or [splits.most_common(1)[0][0]]
    split = chosen[0] if len(chosen) == 1 else chosen
    keys = {} if split == "test" else {"split": split}
    return TableLook("karpathy", "Karpathy's splits", keys, images, splits=splits)


def _of_records(uri: str, found: FirstRecords) -> TableLook:
    names = list(dict.fromkeys(name for record in found.records for name in record if isinstance(name, str)))
    image = _image_column(found.records, names)
    if image is None:
        columns = ", ".join(names) if not found.headless else f"{len(names)} without names"
        raise SourceError(
            f"{uri}: no column has paths or URLs of images (columns: {columns}); give it one, such as `image`."
        )
    caption = _caption_column(found.records, [name for name in names if name != image])
    values = [(row, record[image]) for row, record in enumerate(found.records, 1) if _is_name(record.get(image))]
    what = f"a table ({suffix_of(uri)}) of images" + (" and captions" if caption else " without captions")
    remark = None
    if found.headless:
        keys = _named_columns(names, image, caption, values)
        what += ", without a header line"
    else:
        keys = {} if image == "image" else {"image_key": image}
        if caption is None:
            keys["caption_key"] = "none"
            if len(names) > 1:
                remark = f"none of its columns ({', '.join(names)}) seems to have captions; if one has, name it there"
        elif caption == "conversations":
            keys["caption_key"] = f"{caption}.{_ANSWER}"
            what = "LLaVA's conversations about images"
            remark = "the answer to each image's first question counts as its caption"
        elif caption not in _USUAL_CAPTIONS:
            keys["caption_key"] = caption
    return TableLook("image_captions", what, keys, values, caption is not None, remark=remark)


def _named_columns(
    names: Sequence[str], image: str, caption: str | None, values: Sequence[tuple[int, str]]
) -> dict[str, Any]:
    """The keys of a table without a header line: its columns get names."""
    of_urls = sum(is_web_address(value) for _, value in values) * 2 > len(values)
    given = {image: "url" if of_urls else "image", **({caption: "caption"} if caption is not None else {})}
    keys: dict[str, Any] = {"columns": [given.get(name, f"column_{int(name) + 1}") for name in names]}
    if of_urls:
        keys["image_key"] = "url"
    if caption is None:
        keys["caption_key"] = "none"
    return keys


def _image_column(records: Sequence[Mapping[str, Any]], names: Sequence[str]) -> str | None:
    shares = {name: _share(records, name, looks_like_an_image) for name in names}
    by_path = [name for name in names if not _share(records, name, _is_url) > 0.5]
    usual = sorted((name for name in names if name in _IMAGE_COLUMNS), key=_IMAGE_COLUMNS.index)
    for wanted, least in ((usual, 0.5), (names, 0.8)):
        likely = [name for name in wanted if shares[name] >= least]
        if likely:
            return next((name for name in likely if name in by_path), likely[0])
    # Names without an ending, as some downloaders give.
    return next((name for name in usual if _share(records, name, _is_name) > 0.5), None)


def _caption_column(records: Sequence[Mapping[str, Any]], names: Sequence[str]) -> str | None:
    usual = sorted((name for name in names if name in _CAPTION_COLUMNS), key=_CAPTION_COLUMNS.index)
    for name in usual:
        if _share(records, name, _is_conversation if name == "conversations" else _is_caption) > 0.1:
            return name
    words = {name: _mean_words(records, name) for name in names}
    longest = max(words, key=words.__getitem__, default=None)
    # The other one of two columns without names may have captions of single words.
    least = 1.0 if list(names) in (["0"], ["1"]) else _WORDS_OF_CAPTIONS
    return longest if longest is not None and words[longest] >= least else None


def _share(records: Sequence[Mapping[str, Any]], name: str, holds: Any) -> float:
    return sum(bool(holds(record.get(name))) for record in records) / max(1, len(records))


def _mean_words(records: Sequence[Mapping[str, Any]], name: str) -> float:
    texts = [record[name] for record in records if isinstance(record.get(name), str)]
    texts = [text for text in texts if not looks_like_an_image(text) and any(map(str.isalpha, text))]
    return sum(len(text.split()) for text in texts) / max(1, len(records))


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _is_url(value: Any) -> bool:
    return isinstance(value, str) and is_web_address(value)


def _is_caption(value: Any) -> bool:
    if isinstance(value, list):
        return any(isinstance(each, str) for each in value)
    return _is_name(value) and not looks_like_an_image(value)


def _is_conversation(value: Any) -> bool:
    return isinstance(value, list) and len(value) > 1 and all(isinstance(each, dict) for each in value)


def table_name_order(uri: str) -> tuple[bool, bool, int, str]:
    """Sorts tables: captions before others, training before the rest, near before far."""
    name = os.path.basename(uri).lower()  # noqa: PTH119 - a path or a URL
    return ("caption" not in name, "train" not in name, uri.count("/"), uri)
