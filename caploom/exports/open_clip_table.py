"""Exports as open_clip's `--dataset-type csv` reads them: a table of `filepath` and `title`, a line per caption.

open_clip reads with `pandas.read_csv(file, sep=...)`, whose rules are followed here: quotes are doubled, tabs and
newlines are inside quotes, and a caption that pandas would take for a missing value gets a trailing space, which
tokenizers strip.
"""

import csv
from pathlib import Path
from typing import ClassVar

from caploom.exports.format import CaptionLines, Written, command
from caploom.exports.images import ImageStream

# What pandas reads as NaN, quoted or not (`pandas.read_csv`, `na_values`), and open_clip then trains on as "nan".
_MISSING_TO_PANDAS = frozenset(
    "#N/A|#N/A N/A|#NA|-1.#IND|-1.#QNAN|-NaN|-nan|1.#IND|1.#QNAN|<NA>|N/A|NA|NULL|NaN|None|n/a|nan|null".split("|")
)


class OpenClipTsv(CaptionLines):
    """`pairs.tsv`, tab-separated: what open_clip expects by default."""

    separator: ClassVar[str] = "\t"
    file_name: ClassVar[str] = "pairs.tsv"

    def write(self, images: ImageStream, folder: Path, final: str) -> Written:
        """See the module."""
        flags = [] if self.separator == "\t" else ["--csv-separator", self.separator]
        train = command("python", "-m", "open_clip_train.main", "--dataset-type", "csv", "--train-data")
        table_file = command(f"{final}/{self.file_name}", *flags)
        written = Written(files=[self.file_name], how_to_read=[f"{train} {table_file}".rstrip()])
        with (folder / self.file_name).open("w", encoding="utf-8", newline="") as file:
            # Everything is quoted: the writer leaves a lone carriage return unquoted, which ends a line for pandas.
            table = csv.writer(file, delimiter=self.separator, lineterminator="\n", quoting=csv.QUOTE_ALL)
            table.writerow(("filepath", "title"))
            for image, data in images:
                path = images.file_of(image, data, folder, final)
                if path is None:
                    continue
                written.images += 1
                for caption, _ in self.entries(image, images):
                    table.writerow((path, _title(caption)))
                    written.captions += 1
        return written


class OpenClipCsv(OpenClipTsv):
    """`pairs.csv`, comma-separated: for open_clip with `--csv-separator ,`, and for spreadsheets."""

    separator: ClassVar[str] = ","
    file_name: ClassVar[str] = "pairs.csv"


def _title(caption: str) -> str:
    if caption in _MISSING_TO_PANDAS:
        return caption + " "
    # pandas' parser ends a field at a NUL.
    return caption.replace("\0", " ")
