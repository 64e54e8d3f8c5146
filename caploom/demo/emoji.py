"""Real pictures that people drew and named: `python -m caploom.demo.emoji --out data/emoji`.

Fetches three npm packages and writes two folders of 64 x 64 pictures with captions, in the format of the reader
`image_captions`. Training sees Google's drawings with poor captions, one per image; the evaluation set is Twitter's
drawings of the same concepts with clean captions, so a model must recognize the thing and not the drawing.
"""

import hashlib
import json
import random
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from caploom.common.progress import track
from caploom.errors import CaploomError
from caploom.storage.writing import write_atomically

TRAINING = "google"
EVALUATION = "twitter"
PACKAGES = {
    "emoji-datasource-google": "16.0.0",
    "emoji-datasource-twitter": "16.0.0",
    "emojibase-data": "17.0.0",
}
"""The packages, at exact versions: the same pictures and words each time."""

MARKER = "complete.json"
_FORMAT = 1
_PATIENCE = 900  # seconds for a package of 100 MB on a slow connection
_PICTURE_NAME = re.compile(r"[0-9a-f-]+\.png")
_VARIATION_SELECTOR = "FE0F"  # "draw it in colour": some lists write it and some don't, and the concept is the same
_COMPONENTS = "Component"  # skin tones by themselves

_OPENINGS = ("a picture of {label}", "this is {label}", "a small drawing of {label}", "an icon that shows {label}")
_ENDINGS = (", about {tags}", ", for {tags}", "; think of {tags}", ", as in {tags}")

_ATTRIBUTION = """\
# Where these pictures and words come from

- `google/`: Noto Emoji drawings by Google, unchanged. Apache License 2.0 (https://www.apache.org/licenses/LICENSE-2.0).
- `twitter/`: Twemoji drawings by Twitter, Inc and other contributors, unchanged. CC-BY 4.0
  (https://creativecommons.org/licenses/by/4.0/).
- The captions in both JSON files: labels and tags of emojibase by Miles Johnson (MIT), put together into captions.

The drawings were taken from the npm packages {packages}, put together by Cal Henderson (MIT).
"""


@dataclass(frozen=True)
class Concept:
    """A thing that has a picture in both sets: its file's name there, and its words."""

    picture: str
    label: str
    tags: tuple[str, ...]


def fetch_emoji(out: Path) -> int:
    """Write pictures, captions and ATTRIBUTION.md into `out`, unless this version is there completely.

    Returns the number of concepts. Raises `CaploomError` when npm is missing, fails, or returns something unexpected.
    """
    written = _written(out)
    if written is not None:
        return written
    with tempfile.TemporaryDirectory(prefix="caploom-emoji-") as folder, track("fetching emoji", "packages") as bar:
        report = bar.part()
        archives: dict[str, Path] = {}
        for number, (package, version) in enumerate(PACKAGES.items(), start=1):
            archives[package] = _npm_pack(package, version, Path(folder))
            report(number, len(PACKAGES))
        return write_emoji(archives, out)


def write_emoji(archives: Mapping[str, Path], out: Path) -> int:
    """Write the data set from the packages' archives; the marker last. Returns the number of concepts."""
    training, evaluation, words = (archives[package] for package in PACKAGES)
    listed = _read_json(training, "package/emoji.json")
    concepts = common_concepts(listed, _read_json(words, "package/en/data.json"))
    drawn = {TRAINING: _drawings(training, TRAINING, concepts), EVALUATION: _drawings(evaluation, EVALUATION, concepts)}
    (out / MARKER).unlink(missing_ok=True)
    for name, pictures in drawn.items():
        (out / name).mkdir(parents=True, exist_ok=True)
        for concept in concepts:
            (out / name / concept.picture).write_bytes(pictures[concept.picture])
    _write_rows(out / f"{TRAINING}.json", [(c.picture, training_caption(c)) for c in concepts])
    _write_rows(out / f"{EVALUATION}.json", [(c.picture, text) for c in concepts for text in evaluation_captions(c)])
    packages = " and ".join(f"`{package}` {version}" for package, version in list(PACKAGES.items())[:2])
    write_atomically(out / "ATTRIBUTION.md", _ATTRIBUTION.format(packages=packages).encode())
    write_atomically(out / MARKER, json.dumps({**_identity(), "concepts": len(concepts)}, indent=2).encode())
    return len(concepts)


def common_concepts(listed: Sequence[Mapping[str, Any]], words: Sequence[Mapping[str, Any]]) -> list[Concept]:
    """The concepts that both sets draw and emojibase names, in the order of the list; skin tones left out."""
    named = {_code(entry["hexcode"]): entry for entry in words}
    concepts = []
    for entry in listed:
        drawn_by_both = entry[f"has_img_{TRAINING}"] and entry[f"has_img_{EVALUATION}"]
        name = named.get(_code(entry["unified"]))
        if drawn_by_both and name is not None and entry["category"] != _COMPONENTS:
            concepts.append(Concept(entry["image"], name["label"], tuple(name.get("tags", ()))))
    return concepts


def training_caption(concept: Concept) -> str:
    """A poor caption as on the web: the label and up to two tags, strung together; the same one each time."""
    draw = _random(concept, "training")
    tags = draw.sample(_new_tags(concept), k=min(draw.randint(0, 2), len(_new_tags(concept))))
    return draw.choice((" ", ", ")).join([concept.label, *tags])


def evaluation_captions(concept: Concept) -> list[str]:
    """Three clean captions: the label, a sentence of it, and a sentence with tags; the same ones each time."""
    draw = _random(concept, "evaluation")
    plain, tagged = draw.sample(_OPENINGS, k=2)
    tags = draw.sample(_new_tags(concept), k=min(2, len(_new_tags(concept))))
    ending = draw.choice(_ENDINGS).format(tags=" and ".join(tags)) if tags else ""
    return [concept.label, plain.format(label=concept.label), tagged.format(label=concept.label) + ending]


def _new_tags(concept: Concept) -> list[str]:
    """The tags that say more than the label."""
    said = set(re.findall(r"\w+", concept.label.lower()))
    return [tag for tag in concept.tags if tag.lower() not in said]


def _random(concept: Concept, purpose: str) -> random.Random:
    digest = hashlib.sha256(f"{purpose} {concept.picture}".encode()).digest()
    return random.Random(int.from_bytes(digest[:8], "big"))


def _code(code_points: str) -> str:
    return "-".join(part for part in code_points.upper().split("-") if part != _VARIATION_SELECTOR)


def _identity() -> dict[str, Any]:
    return {"format": _FORMAT, "packages": PACKAGES}


def _written(out: Path) -> int | None:
    """The number of concepts there, if this version is there completely."""
    try:
        marker = json.loads((out / MARKER).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if not isinstance(marker, dict) or {key: marker.get(key) for key in _identity()} != _identity():
        return None
    return int(marker["concepts"])


def _npm_pack(package: str, version: str, folder: Path) -> Path:
    """Download a package's archive; none of its code runs."""
    npm = shutil.which("npm")
    if npm is None:
        raise CaploomError("npm is not installed, and the emoji come from npm packages: install Node.js with npm.")
    command = [npm, "pack", f"{package}@{version}", "--pack-destination", str(folder), "--silent"]
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=_PATIENCE, check=False)
    except subprocess.TimeoutExpired:
        raise CaploomError(f"npm did not fetch {package}@{version} within {_PATIENCE} s: try again.") from None
    archive = folder / f"{package}-{version}.tgz"
    if done.returncode != 0 or not archive.is_file():
        lines = [line for line in (done.stderr + done.stdout).splitlines() if line.strip()]
        said = f": {lines[-1].strip()}" if lines else ""
        raise CaploomError(f"npm could not fetch {package}@{version} (exit code {done.returncode}){said}")
    return archive


def _read_json(archive: Path, name: str) -> Any:
    try:
        with tarfile.open(archive) as packed:
            file = packed.extractfile(name)
            if file is None:
                raise KeyError(name)
            return json.load(file)
    except (OSError, tarfile.TarError, KeyError, ValueError) as error:
        raise CaploomError(f"{archive.name}: {name} cannot be read from it ({error}): fetch it again.") from None


def _drawings(archive: Path, style: str, concepts: Sequence[Concept]) -> dict[str, bytes]:
    """The bytes of each concept's picture in an archive, by file name."""
    folder = f"package/img/{style}/64/"
    pictures = {}
    try:
        with tarfile.open(archive) as packed:
            for member in packed:
                name = member.name.removeprefix(folder)
                if member.isfile() and member.name.startswith(folder) and _PICTURE_NAME.fullmatch(name):
                    file = packed.extractfile(member)
                    assert file is not None  # a plain file has content
                    pictures[name] = file.read()
    except (OSError, tarfile.TarError) as error:
        raise CaploomError(f"{archive.name}: it cannot be unpacked ({error}): fetch it again.") from None
    missing = [concept.picture for concept in concepts if concept.picture not in pictures]
    if missing:
        raise CaploomError(f"{archive.name}: it lacks {len(missing)} pictures that it lists, such as {missing[0]}.")
    return pictures


def _write_rows(path: Path, rows: Sequence[tuple[str, str]]) -> None:
    records = [{"image": image, "caption": caption} for image, caption in rows]
    write_atomically(path, (json.dumps(records, ensure_ascii=False, indent=1) + "\n").encode())


@click.command()
@click.option("--out", type=click.Path(path_type=Path), default=Path("data/emoji"), show_default=True)
def main(out: Path) -> None:
    """Fetch emoji drawings and their names into a folder that `configs/emoji.yaml` reads."""
    try:
        concepts = fetch_emoji(out)
    except CaploomError as error:
        click.echo(f"{error}", err=True)
        sys.exit(2)
    click.echo(f"{out}: {concepts} concepts, drawn by Google (training) and by Twitter (evaluation).")


if __name__ == "__main__":
    main()
