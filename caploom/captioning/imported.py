"""The `import` backend: existing captions, joined to the ingested images by identity and not by name."""

import os
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import ExitStack
from itertools import islice
from typing import Any

from caploom.captioning.backend import CanaryRow, Captioned, Chunk, Failed, Generation, ImageRef
from caploom.captioning.imported_rows import ImportedRows
from caploom.captioning.settings import ImportedCaptions
from caploom.errors import CaptionerError, SourceError
from caploom.readers.image_captions import ImageCaptionsReader
from caploom.readers.rewriting import Rewriting
from caploom.storage.store import Store
from caploom.storage.tables import failure

_STAGE = "captions"
_WINDOW = 5_000  # images that are looked up at a time


class ImportBackend:
    """The captions of a file, found by the identity of the image that each row names.

    A row's image is known by the path of an ingested pair, else by its bytes. `facts` counts the file's rows: `rows` =
    `matched_rows` + those `unmatched`, by reason; and names the rules of `rewrite` that match no path.
    """

    device = "file"

    def __init__(self, settings: ImportedCaptions, store: Store) -> None:
        """Read the whole file; raises `CaptionerError` when that fails, or when no row names an ingested image."""
        self.facts: dict[str, Any] = {}
        self._settings = settings
        self._rewriting = Rewriting(sorted(settings.rewrite.items(), key=lambda rule: -len(rule[0])))
        self._rows = ImportedRows(settings.captions.name, store)
        with ExitStack() as on_failure:
            on_failure.callback(self._rows.close)
            self._read()
            self._match()
            on_failure.pop_all()

    def caption(self, refs: Iterable[ImageRef]) -> Generator[Chunk, None, None]:
        """Give each image the first caption that the file has for it; an image without one is a `Failed`."""
        self._match()
        remaining = iter(refs)
        while window := list(islice(remaining, _WINDOW)):
            captioned: list[Captioned] = []
            failed: list[Failed] = []
            captions = self._rows.captions_of([ref.image_id for ref in window])
            for ref, caption in zip(window, captions, strict=True):
                if caption is None:
                    detail = f"{ref.image}: {self._settings.captions.name} has no usable caption of this image."
                    failed.append(Failed(ref, "not_in_import", detail))
                else:
                    captioned.append(Captioned(ref, Generation(caption, None, "imported"), 0.0))
            yield Chunk(captioned, failed)

    def canary(self, refs: Sequence[ImageRef]) -> list[CanaryRow] | None:
        """Nothing is batched."""
        return None

    def close(self) -> None:
        """Delete the temporary database."""
        self._rows.close()

    def unmatched(self) -> Iterator[dict[str, Any]]:
        """A failure row for each row of the file that gives no image its caption, in the file's order."""
        for row, image, reason, sentence in self._rows.unmatched():
            yield failure(_STAGE, str(row), image, reason, sentence)

    def _read(self) -> None:
        settings = self._settings
        reader = ImageCaptionsReader(
            root=str(settings.root),
            captions=str(settings.captions),
            image_key=settings.image_key,
            caption_key=settings.caption_key,
        )
        try:
            self._rows.take(reader.rows(self._rewriting))
        except SourceError as error:
            raise CaptionerError(str(error)) from None
        except OSError as error:
            raise CaptionerError(f"{settings.captions}: it cannot be read ({error.strerror}).") from None

    def _match(self) -> None:
        """Match rows and ingested images; again when others have been ingested since."""
        if self._rows.match():
            reasons = self._rows.counts()
            matched = reasons.pop(None, 0)
            self.facts = {"rows": matched + sum(reasons.values()), "matched_rows": matched, "unmatched": reasons}
            if self._rewriting.unused:
                self.facts["unused_rewrites"] = sorted(self._rewriting.unused)
        ingested = self._rows.an_ingested_path()
        if self.facts["matched_rows"] == 0 and ingested is not None:
            raise CaptionerError(self._why_none_matches(ingested))

    def _why_none_matches(self, ingested: str) -> str:
        file, first = self._settings.captions, self._rows.first_named()
        if first is None:
            bad = next(self.unmatched(), None)
            why = f" ({bad['detail']})" if bad else ""
            return f"{file}: it has no row that names an image{why}; correct the file, `image_key` or `captions`."
        row, image = first
        became = os.path.normpath(self._settings.root / self._rewriting(image))
        return (
            f"{file}: none of its {self.facts['rows']:,} rows gives an ingested image its caption: {image!r} of row "
            f"{row} became {became!r}, and an ingested image is at {ingested!r}; correct `root` or `rewrite`."
        )
