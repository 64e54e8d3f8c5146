"""Every reader by its name in the YAML. A new reader is one module and one name in this union."""

from typing import Annotated

from pydantic import Field

from caploom.readers.coco import CocoReader
from caploom.readers.image_captions import ImageCaptionsReader
from caploom.readers.image_folder import ImageFolderReader
from caploom.readers.karpathy import KarpathyReader
from caploom.readers.parquet_images import ParquetReader
from caploom.readers.picture_book import PictureBookReader
from caploom.readers.webdataset import WebdatasetReader

Reader = Annotated[
    CocoReader
    | ImageCaptionsReader
    | ImageFolderReader
    | KarpathyReader
    | ParquetReader
    | PictureBookReader
    | WebdatasetReader,
    Field(discriminator="reader"),
]
