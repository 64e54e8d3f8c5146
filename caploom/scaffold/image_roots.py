"""Where the images of a table lie: the folder that its paths start from, or how a downloader named its URLs' files."""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from caploom.errors import SourceError
from caploom.readers.img2dataset_names import SHORTCUTS, downloaded_name
from caploom.storage.paths import file_system, folder_of, is_url

_DOWNLOADS = (
    *SHORTCUTS,
    *("{shard:05d}/{index:09d}.png", "{shard:05d}/{index:09d}.webp"),
    *(
        f"{{{name}}}{ending}"
        for name in ("crc32", "md5", "sha1", "sha256", "index:08d", "index:09d", "index", "row", "row:08d", "index:06d")
        for ending in ("", ".jpg", "{suffix}", ".png", ".webp")
    ),
)
"""How downloaders name files, the best known first."""

_LOOKED_UP = 20  # paths for each folder
_URLS_LOOKED_UP = 100  # for each folder and naming: of many sets, a part of the URLs is gone
_ROOTS_OF_DOWNLOADS = 20
_MOST_STRIPPED = 10  # folders at the beginning of a path that may be another machine's
_MOST_FOLDERS = 100


@dataclass(frozen=True)
class Placed:
    """Where a table's images are: the reader's `root`, and the keys that lead from the table to files below it.

    `found` of the `asked` first images are there.
    """

    root: str
    found: int
    asked: int
    keys: dict[str, Any] = field(default_factory=dict)


def place_paths(
    paths: Sequence[str], roots: Sequence[str], has: Callable[[str], bool], *, may_rewrite: bool
) -> Placed | None:
    """The root below which the most of these paths are; None when none is anywhere.

    With `may_rewrite`, the folders that all paths begin with may be another machine's.
    """
    looked_up = list(dict.fromkeys(paths))[:_LOOKED_UP]
    best: Placed | None = None
    for stripped, prefix in _prefixes(looked_up) if may_rewrite else [(0, "")]:
        for root in roots:
            found = sum(has(_joined(root, path[len(prefix) :])) for path in looked_up)
            if found > (best.found if best else 0):
                keys = {"rewrite": [{"from": prefix, "to": ""}]} if stripped else {}
                best = Placed(root, found, len(looked_up), keys)
        if best is not None and best.found == len(looked_up):
            break
    return best


def place_downloads(urls: Sequence[tuple[int, str]], roots: Sequence[str], has: Callable[[str], bool]) -> Placed | None:
    """The naming and the root under which the most files of these rows' URLs are; None when none is anywhere."""
    best: Placed | None = None
    urls = urls[:_URLS_LOOKED_UP]
    for template in _DOWNLOADS:
        names = [downloaded_name(template, row, url) for row, url in urls]
        for root in roots[:_ROOTS_OF_DOWNLOADS]:
            found = sum(has(_joined(root, name)) for name in names if name)
            if found > (best.found if best else 0):
                best = Placed(root, found, len(urls), {"downloaded_as": template})
        if best is not None and best.found * 2 > len(urls):
            break
    return best


def likely_roots(table: str) -> list[str]:
    """Folders near a table in which its images may be: its own, the one above, and those in both."""
    own = folder_of(table)
    above = folder_of(own)
    below = _folders_in(own)
    deeper = [each for folder in below[:10] for each in _folders_in(folder)]
    return list(dict.fromkeys([own, above, *below, *_folders_in(above), *deeper]))[:_MOST_FOLDERS]


def _prefixes(paths: Sequence[str]) -> Iterator[tuple[int, str]]:
    """The beginnings that all paths share, whole folders, from none to all of them."""
    yield 0, ""
    prefix = ""
    for count, parts in enumerate(zip(*(path.split("/")[:-1] for path in paths), strict=False), 1):
        if count > _MOST_STRIPPED or len(set(parts)) > 1:
            return
        prefix += f"{parts[0]}/"
        yield count, prefix


def _joined(root: str, path: str) -> str:
    if path.startswith("/"):
        # A local path that is absolute is below the root, or is not read.
        return path if path.startswith(root.rstrip("/") + "/") else ""
    return f"{root.rstrip('/')}/{path}"


def _folders_in(folder: str) -> list[str]:
    if is_url(folder):
        return _prefixes_in(folder)
    try:
        with os.scandir(folder) as entries:
            return sorted(
                entry.path for entry in islice(entries, 20_000) if not entry.name.startswith(".") and entry.is_dir()
            )[:_MOST_FOLDERS]
    except OSError:
        return []


def _prefixes_in(folder: str) -> list[str]:
    try:
        filesystem, path = file_system(folder)
        scheme = folder.partition("://")[0]
        found = filesystem.ls(path, detail=True)
    except (SourceError, OSError):
        return []
    folders = [each["name"] for each in found if each.get("type") == "directory"]
    return [f"{scheme}://{name.strip('/')}" for name in sorted(folders)][:_MOST_FOLDERS]
