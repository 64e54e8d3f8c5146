"""Small training sets to export, and captions that formats get wrong."""

from pathlib import Path
from typing import Any

from PIL import Image
from small_factory import picture

from caploom.storage.opening import open_store
from caploom.storage.records import TRAINING_ROWS, image_identity
from caploom.storage.store import Artifact, Plan
from caploom.storage.tables import table_of, write_table
from caploom.training_set.settings import Drawing

HARD_CAPTIONS = [
    'a "quoted" word, a comma; and a semicolon',
    "a tab\tinside",
    "two\nlines",
    "windows\r\nlines",
    "an old\rMac",
    "NaN",
    "null",
    "None",
    "<b>bold</b> &amp; more",
    "ein Mädchen, 犬がいる。 كلب 🐕",
    "\\backslashes\\n and 'apostrophes'",
    '"',
    "  spaces around  ",
    "control \x07 character",
    "a nul \0 inside",
]


class TrainingSets:
    """Writes pictures and finished training sets over them into one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = open_store(folder / "store")
        (folder / "images").mkdir()

    def picture(self, number: int, suffix: str = ".png") -> Path:
        path = self.folder / "images" / f"{number:04d}{suffix}"
        image = picture(number)
        (image.convert("P") if suffix == ".gif" else image).save(path)
        return path

    def row(
        self, path: Path, captions: list[str], sources: list[str], weights: list[float] | None = None
    ) -> dict[str, Any]:
        return {
            "image_id": image_identity(path.read_bytes()),
            "image": f"../{path.parent.name}/{path.name}",
            "path": str(path),
            "captions": captions,
            "sources": sources,
            "weights": weights or [1 / max(len(captions), 1)] * len(captions),
        }

    def finished(self, rows: list[dict[str, Any]], drawing: Drawing | None = None, rows_a_file: int = 7) -> Artifact:
        schema = TRAINING_ROWS.with_metadata(drawing.metadata() if drawing else None)
        plan = Plan(kind="training_set", name=("mixed",), code_version="1", configuration={"rows": len(rows)})

        def build(draft: Any) -> None:
            for start in range(0, len(rows), rows_a_file):
                table = table_of(rows[start : start + rows_a_file], schema)
                write_table(table, draft.folder / f"rows-{start // rows_a_file:05d}.parquet")

        return self.store.make(plan, build)

    def plain(self, count: int = 12) -> list[dict[str, Any]]:
        """Each image with a raw caption and one of each of two captioners, drawn 0.6, 0.2, 0.2."""
        sources = ["raw", "llava-1.5", "otter"]
        return [
            self.row(self.picture(number), [f"{source} says {number}" for source in sources], sources, [0.6, 0.2, 0.2])
            for number in range(count)
        ]

    def hard(self) -> list[dict[str, Any]]:
        """Each of the hard captions as a captioner's, beside a plain raw one."""
        return [
            self.row(self.picture(number), [f"photo {number}", caption], ["raw", "otter"])
            for number, caption in enumerate(HARD_CAPTIONS)
        ]


def small_image(data: Image.Image) -> tuple[int, ...]:
    """Two pixels that tell every picture of `small_factory` from every other."""
    rgb = data.convert("RGB")
    return (*rgb.getpixel((0, 0)), *rgb.getpixel((8, 8)))  # type: ignore[misc]
