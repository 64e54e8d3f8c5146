"""Reads the picture book: renders its scenes once into a folder, then reads that folder like a user's."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, PositiveInt

from caploom.common.progress import track
from caploom.common.settings import resolve_path
from caploom.readers.source_reader import SourceReader
from caploom.readers.source_row import SourceRow


class PictureBookReader(SourceReader):
    """Scenes composed from OpenMoji drawings, each with a poor raw caption (or, to evaluate, five full ones)."""

    # The same scenes are the same source in any folder.
    not_fingerprinted: ClassVar[frozenset[str]] = frozenset({"folder"})
    locations: ClassVar[frozenset[str]] = frozenset({"folder"})
    reader: Literal["picture_book"] = "picture_book"
    folder: Annotated[Path, BeforeValidator(resolve_path)] = Field(description="Where the pictures are rendered to.")
    split: Literal["training", "evaluation"] = "training"
    scenes: PositiveInt = Field(description="How many pictures.")
    seed: int = 0
    mismatched: float = Field(default=0.2, ge=0, le=1, description="Fraction of wrong raw captions.")

    @property
    def attribution(self) -> str:
        """The attribution that pages with the pictures must show."""
        return "Drawings: OpenMoji (openmoji.org), HfG Schwäbisch Gmünd and contributors, CC BY-SA 4.0."

    def prepare(self) -> None:
        """Render the pictures, unless they exist."""
        from caploom.demo.picture_book import write_picture_book

        with track(f"drawing {self.split} scenes", "scenes") as bar:
            write_picture_book(self.folder, **self._parameters, progress=bar.part())

    @property
    def is_drawn(self) -> bool:
        """Whether the pictures already exist."""
        from caploom.demo.picture_book import is_written

        return is_written(self.folder, **self._parameters)

    @property
    def _parameters(self) -> dict[str, Any]:
        return self.model_dump(include={"split", "scenes", "seed", "mismatched"})

    def rows(self) -> Iterator[SourceRow]:
        """The rows of the rendered folder's caption file."""
        from caploom.readers.image_captions import ImageCaptionsReader

        self.prepare()
        folder = ImageCaptionsReader(root=str(self.folder / "images"), captions=str(self.folder / "captions.json"))
        return folder.rows()
