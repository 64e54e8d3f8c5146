"""Expands the name of a file, a folder, or a pattern with `*` or `{00000..00041}` to files."""

from collections.abc import Sequence
from glob import glob

from braceexpand import UnbalancedBracesError, braceexpand

from caploom.errors import SourceError
from caploom.readers.caption_rows import suffix_of
from caploom.storage.paths import exists, file_system, is_folder, is_url, list_files


def files_named(pattern: str, suffixes: Sequence[str]) -> list[str]:
    """The files that a pattern names, in order; raises `SourceError` when there are none, or one of them is not there.

    For a folder, the files with one of these suffixes.
    """
    try:
        uris = list(braceexpand(pattern))
    except UnbalancedBracesError:
        raise SourceError(f"{pattern}: a brace is opened and not closed; write {{00000..00041}}.") from None
    found: list[str] = []
    for uri in uris:
        if "*" in uri or "?" in uri:
            found += _matching(uri)
        elif is_folder(uri):
            found += [file.uri for file in list_files(uri) if suffix_of(file.uri) in suffixes]
        elif exists(uri):
            found.append(uri)
        else:
            raise SourceError(f"{uri}: there is no such file; correct its name or the pattern that names it.")
    if not found:
        raise SourceError(f"{pattern}: it matches no file that ends in {' or '.join(suffixes)}; correct it.")
    return found


def _matching(pattern: str) -> list[str]:
    if not is_url(pattern):
        return sorted(glob(pattern, recursive=True))  # noqa: PTH207 - an absolute pattern, which Path.glob refuses
    filesystem, path = file_system(pattern)
    scheme = pattern.partition("://")[0]
    return sorted(f"{scheme}://{name.lstrip('/')}" for name in filesystem.glob(path))
