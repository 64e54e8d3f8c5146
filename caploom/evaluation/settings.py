"""The evaluation sets of the YAML: images with captions to retrieve, or images with classes."""

from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BeforeValidator, Field, field_validator, model_validator

from caploom.common.settings import Settings, resolve_path
from caploom.readers.coco import CocoReader
from caploom.readers.image_captions import ImageCaptionsReader
from caploom.readers.image_folder import ImageFolderReader
from caploom.readers.karpathy import KarpathyReader
from caploom.readers.parquet_images import ParquetReader
from caploom.readers.picture_book import PictureBookReader
from caploom.readers.source_reader import SourceReader
from caploom.readers.webdataset import WebdatasetReader

NAMED_TEMPLATES = ("openai-imagenet", "simple-imagenet")


class RetrievalSettings(Settings):
    """The keys of a set of images with captions in addition to its reader's own."""

    protocol: Literal["coco-5k", "coco-1k", "flickr30k-1k"] | None = Field(
        default=None, description="A standard protocol; the set must then contain exactly what that requires."
    )

    def fingerprinted(self) -> dict[str, Any]:
        """The reader's fields, with the protocol where there is one."""
        return {key: value for key, value in super().fingerprinted().items() if key != "protocol" or value is not None}


class ImageCaptionsSet(RetrievalSettings, ImageCaptionsReader):
    """Images and one file of captions."""


class KarpathySet(RetrievalSettings, KarpathyReader):
    """A split of one of Karpathy's files."""

    @model_validator(mode="after")
    def _protocols_are_of_the_test_split(self) -> Self:
        if self.protocol is not None and self.splits != ["test"]:
            raise ValueError(
                f'the protocol {self.protocol} is for the split "test", but split is {self.split!r}: write split: test'
            )
        return self


class PictureBookSet(RetrievalSettings, PictureBookReader):
    """Scenes of the picture book."""


class CocoSet(RetrievalSettings, CocoReader):
    """One of COCO's own caption files."""


class ImageFolderSet(RetrievalSettings, ImageFolderReader):
    """A folder of images with their captions beside them."""


class ParquetSet(RetrievalSettings, ParquetReader):
    """Parquet tables of images and captions."""


class WebdatasetSet(RetrievalSettings, WebdatasetReader):
    """Tars of images and captions."""


class ClassificationSet(SourceReader):
    """Images by class, classified by a text classifier made of prompt templates (zero-shot classification)."""

    locations: ClassVar[frozenset[str]] = frozenset({"root", "labels"})
    reader: Literal["image_folders"]
    root: Annotated[Path, BeforeValidator(resolve_path)] = Field(
        description="Folder of class folders; with `labels`, the folder that image paths start from."
    )
    labels: Annotated[Path | None, BeforeValidator(resolve_path)] = Field(
        default=None, description="`.json` (`[{image, label}, ...]`), `.csv` or `.tsv`, where classes are not folders."
    )
    classes: Literal["imagenet"] | dict[str, str] | None = Field(
        default=None,
        description="Folder (or label) to the class's name in prompts; by default its own name with spaces for `_`. "
        "`imagenet`: 1,000 folders named by their WordNet ids, with open_clip's names.",
    )
    templates: Literal["openai-imagenet", "simple-imagenet"] | list[str] = Field(
        default=["a photo of a {}."], description="Prompts with `{}` for the class; or one of open_clip's lists."
    )

    @field_validator("templates", mode="before")
    @classmethod
    def _templates_have_a_place_for_the_class(cls, value: Any) -> Any:
        if isinstance(value, str) and value not in NAMED_TEMPLATES:
            raise ValueError(f'"{value}" is not a list of templates; allowed: {", ".join(NAMED_TEMPLATES)}, or a list')
        for template in value if isinstance(value, list) else []:
            if isinstance(template, str) and template.count("{}") != 1:
                raise ValueError(f'the template "{template}" must have "{{}}" once, where the class\'s name goes')
        if value == []:
            raise ValueError("at least one template is needed: the default is [a photo of a {}.]")
        return value

    @field_validator("classes")
    @classmethod
    def _class_names_differ(cls, value: str | dict[str, str] | None) -> str | dict[str, str] | None:
        if isinstance(value, dict):
            names = list(value.values())
            twice = sorted({name for name in names if names.count(name) > 1})
            if twice:
                raise ValueError(f'two classes have the name "{twice[0]}", and no prompt could distinguish them')
        return value


RetrievalSet = CocoSet | ImageCaptionsSet | ImageFolderSet | KarpathySet | ParquetSet | PictureBookSet | WebdatasetSet
"""A set of images with captions: each reader has one."""

EvaluationSet = Annotated[RetrievalSet | ClassificationSet, Field(discriminator="reader")]
"""One evaluation set of the YAML."""
