"""A factory that lives of its inbox alone, with all four shipped captioners; and pictures to drop into it."""

import shutil
from pathlib import Path
from typing import Any

import yaml
from tiny_factory import ROOT, tiny_settings

from caploom.readers.picture_book import PictureBookReader


def fed_settings(pictures: Path, **automation: Any) -> dict[str, Any]:
    """The demo's captioners, each image captioned shortly; two recipes; an inbox beside the YAML."""
    demo = yaml.safe_load((ROOT / "configs" / "demo.yaml").read_text(encoding="utf-8"))
    settings = tiny_settings(pictures)
    del settings["pairs"]
    captioners = {
        name: {**captioner, "batch_size": 50, "decoding": {**captioner["decoding"], "max_new_tokens": 12}}
        for name, captioner in demo["captioners"].items()
    }
    return {
        **settings,
        "name": "fed",
        "shard_size": 100,
        "inbox": {"folders": ["inbox"], "settle_seconds": 2, "gather_seconds": 0, "caption_patience_seconds": 20},
        "automation": {"interval_seconds": 3, "retry_failures": None, **automation},
        "captioners": captioners,
        "recipes": {
            "raw-only": {"captioners": []},
            "four": {"captioners": "all", "shear": "first-sentence"},
        },
    }


def draw_pictures(folder: Path, count: int, seed: int = 5) -> list[tuple[Path, str]]:
    """So many different pictures and their raw captions."""
    reader = PictureBookReader(folder=folder, scenes=count, seed=seed)
    return [(Path(row.path), row.caption) for row in reader.rows() if row.path and row.caption]


def drop(pictures: list[tuple[Path, str]], inbox: Path, prefix: str = "") -> None:
    """As a person copies images and texts into the inbox."""
    inbox.mkdir(exist_ok=True)
    for path, caption in pictures:
        shutil.copyfile(path, inbox / f"{prefix}{path.name}")
        (inbox / f"{prefix}{path.stem}.txt").write_text(caption, encoding="utf-8")
