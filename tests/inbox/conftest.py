"""A factory that lives of its inbox alone, and a clock that the tests set."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from caploom.config.factory import Factory
from caploom.config.factory_config import parse_config
from caploom.inbox.scan import InboxScan, scan_inbox
from caploom.readers.source_row import SourceRow
from caploom.stages.shards import INBOX, list_shards
from caploom.stages.source_rows import shard_rows


def picture(number: int) -> bytes:
    """A small image, another for each number."""
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), (number % 256, number // 256 % 256, 9)).save(buffer, "PNG")
    return buffer.getvalue()


class Fed:
    """The factory, its inbox, and looks at it at the test's own time."""

    def __init__(self, root: Path, **inbox: Any) -> None:
        self.root = root
        self.inbox = root / "inbox"
        self.inbox.mkdir(exist_ok=True)
        self.now = 1_000.0
        self.settings = {"folders": ["inbox"], "settle_seconds": 10, "gather_seconds": 0, **inbox}

    @property
    def factory(self) -> Factory:
        settings = {
            "name": "fed",
            "store": "store",
            "shard_size": 5,
            "inbox": self.settings,
            "trainers": {"tiny": {"model": "picture-book", "steps": 2, "batch_size": 16}},
            "evaluation_sets": {
                "scenes": {"reader": "picture_book", "folder": "scenes", "split": "evaluation", "scenes": 5}
            },
            "recipes": {"raw-only": {"captioners": []}},
        }
        return Factory.from_config(parse_config(settings, base=self.root, source="fed.yaml"))

    def drop(self, name: str, number: int, caption: str | None = "a caption") -> Path:
        path = self.inbox / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture(number))
        if caption is not None:
            path.with_suffix(".txt").write_text(caption, encoding="utf-8")
        return path

    def scan(self, after: float = 0.0) -> InboxScan:
        """A look, so many seconds after the one before."""
        self.now += after
        return scan_inbox(self.factory, now=self.now)

    def settled(self) -> InboxScan:
        """A look that sees what is there, and one when it has settled."""
        self.scan()
        return self.scan(after=11)

    def rows(self) -> list[SourceRow]:
        return [row for listing in list_shards(self.factory, INBOX) for row in shard_rows(listing)]

    def images(self) -> list[str]:
        return [row.image for row in self.rows()]


@pytest.fixture
def fed(tmp_path: Path) -> Fed:
    return Fed(tmp_path)


@pytest.fixture
def make_fed(tmp_path: Path) -> Callable[..., Fed]:
    return lambda **inbox: Fed(tmp_path, **inbox)
