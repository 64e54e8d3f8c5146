"""Writes the YAML of a new factory, with comments that say what each part is, and its schema for editors."""

import json
import re
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from caploom.common.text import printable
from caploom.config.factory_config import parse_config
from caploom.config.factory_schema import SCHEMA_ID, schema_text
from caploom.errors import ConfigError
from caploom.scaffold.captioner_choice import Chosen
from caploom.scaffold.found import Found
from caploom.storage.paths import is_url, name_of

SCHEMA_NAME = "caploom.schema.json"
"""The schema's file, beside the YAML: an editor finds it when the folder is moved, and without a network."""

_WIDTH = 110
_LISTING_READERS = ("image_folder", "webdataset", "parquet")
_PLACES = ("root", "captions", "tars", "files")

_TRAINING = """\
# To train and measure CLIP as well, remove the # from these three parts and adapt them. A factory without them ends at
# training sets: `caploom export` gives them to other programs.
# trainers:
#   vit-b-32: {model: ViT-B-32, steps: 10000, batch_size: 256, learning_rate: 0.0005, warmup_steps: 500}
# evaluation_sets:
"""


def check_out(out: Path, *, force: bool) -> None:
    """Raise `ConfigError` when the YAML exists already and shall not be overwritten, or has no folder to lie in."""
    if out.is_dir():
        raise ConfigError(f"{out}: it is a folder; name the YAML to write with --out.")
    if out.exists() and not force:
        raise ConfigError(f"{out}: it exists already; name another file with --out, or overwrite it with --force.")
    if not out.absolute().parent.is_dir():
        raise ConfigError(f"{out}: there is no folder {out.parent} to write it to; make that folder first.")
    schema = out.with_name(SCHEMA_NAME)
    if schema.exists() and not force and not _is_our_schema(schema):
        raise ConfigError(f"{schema}: it exists already and is not Caploom's schema; overwrite it with --force.")


def write_factory(found: Found, captioners: Sequence[Chosen], out: Path) -> str:
    """Write the YAML and its schema; gives the YAML's text. Raises `ConfigError` when they cannot be written."""
    text = factory_yaml(found, captioners, out)
    parse_config(yaml.safe_load(text), base=out.resolve().parent, source=str(out))
    try:
        out.with_name(SCHEMA_NAME).write_text(schema_text(), encoding="utf-8")
        out.write_text(text, encoding="utf-8")
    except OSError as error:
        why = error.strerror or str(error)
        raise ConfigError(f"{out}: it cannot be written ({why}); name another place with --out.") from None
    return text


def factory_yaml(found: Found, captioners: Sequence[Chosen], out: Path) -> str:
    """The text of the YAML: relative paths start from its own folder, as always."""
    folder = out.resolve().parent
    name = _factory_name(found.place)
    pairs = {key: _written_place(value, folder) if key in _PLACES else value for key, value in found.pairs.items()}
    parts = [
        f"# yaml-language-server: $schema={SCHEMA_NAME}",
        *_comment(f"{found.sentence()} Written by `caploom init`."),
        f"name: {_scalar(name)}",
        f"store: {_store(found, folder)}  # the folder of everything that is made; or a URL, such as s3://bucket/{name}",
        "",
        *(line for remark in found.remarks for line in _comment(remark)),
        "pairs:",
        *(f"  {key}: {_scalar(value)}" for key, value in pairs.items()),
        "",
        "# `caploom presets` lists the ready-made ones; a key beside `preset` replaces the preset's own.",
        "captioners:",
        *(line for chosen in captioners for line in _captioner(chosen)),
        "",
        *_shears(found),
    ]
    if found.has_captions:
        parts += ["", *_training(pairs, found)]
    return "\n".join(parts) + "\n"


def _captioner(chosen: Chosen) -> list[str]:
    lines = [f"  {line}" for line in _comment(chosen.about, width=_WIDTH - 2)]
    lines += [f"  {_scalar(chosen.name)}:", f"    preset: {_scalar(chosen.preset)}"]
    for key, (example, what) in chosen.to_fill_in().items():
        lines.append(f"    {key}: {_scalar(example)}  # EDIT: {what}")
    return lines


def _shears(found: Found) -> list[str]:
    shears = ["shears:", "  first-sentence: [first_sentence]"]
    if found.has_captions:
        return ["# What is kept of the captioners' texts: a training set is made for each shear.", *shears]
    return [
        "# Captions stay whole. To keep only their first sentences, remove the #:",
        *(f"# {line}" for line in shears),
    ]


def _training(pairs: Mapping[str, Any], found: Found) -> list[str]:
    held_out = "{reader: image_captions, root: held-out, captions: held-out.json}  # images that are not in `pairs`"
    if pairs["reader"] == "karpathy" and "test" in found.splits and pairs.get("split", "test") != "test":
        held_out = _scalar({**pairs, "split": "test"})
    return [
        *_TRAINING.splitlines(),
        f"#   held-out: {held_out}",
        "# recipes:",
        "#   raw-only: {captioners: []}",
        "#   sheared: {captioners: all, shear: first-sentence}",
    ]


def _store(found: Found, folder: Path) -> str:
    """A folder beside the YAML; a hidden one where the reader would otherwise find what the factory makes."""
    place = found.pairs.get("root") or found.pairs.get("tars") or found.pairs.get("files") or ""
    inside = not is_url(str(place)) and folder.is_relative_to(str(place).partition("*")[0].rstrip("/") or "/")
    hidden = found.pairs["reader"] in _LISTING_READERS and inside
    return ".caploom-store" if hidden else "caploom-store"


def _written_place(place: str, folder: Path) -> str:
    """Relative where it is below the YAML's folder, so that both can be moved together."""
    if is_url(place) or not Path(place).is_relative_to(folder):
        return place
    relative = str(Path(place).relative_to(folder))
    return f"./{relative}" if relative.startswith("~") else relative


def _factory_name(place: str) -> str:
    stem = name_of(place)
    stem = stem.rpartition(".")[0] or stem
    return re.sub(r"[^A-Za-z0-9._-]+", "-", stem).strip("-._")[:60] or "factory"


def _comment(text: str, width: int = _WIDTH) -> Iterable[str]:
    """A text as lines of a comment, none of which can end it."""
    return textwrap.wrap(
        printable(text),
        width,
        initial_indent="# ",
        subsequent_indent="# ",
        break_long_words=False,
        break_on_hyphens=False,
    )


def _scalar(value: Any) -> str:
    """A value as YAML on one line."""
    text = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=float("inf"), sort_keys=False)
    return str(text).removesuffix("\n").removesuffix("\n...")


def _is_our_schema(path: Path) -> bool:
    try:
        return bool(json.loads(path.read_bytes()).get("$id") == SCHEMA_ID)
    except (OSError, ValueError, AttributeError):
        return False
