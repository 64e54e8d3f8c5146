"""Every reader by its name in the YAML. A new reader is one module and one name in this union."""

from typing import Annotated

from pydantic import Field

from caploom.demo.reader import PictureBookReader
from caploom.readers.coco import CocoReader
from caploom.readers.image_captions import ImageCaptionsReader
from caploom.readers.image_folder import ImageFolderReader
from caploom.readers.karpathy import KarpathyReader

Reader = Annotated[
    CocoReader | ImageCaptionsReader | ImageFolderReader | KarpathyReader | PictureBookReader,
    Field(discriminator="reader"),
]
