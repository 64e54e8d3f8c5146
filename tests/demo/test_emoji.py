"""Emoji: only concepts that both sets draw, captions as stated, whole or not there. A small `npm` hands them out."""

import io
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from caploom.demo import emoji
from caploom.demo.emoji import Concept, common_concepts, evaluation_captions, fetch_emoji, training_caption, write_emoji
from caploom.errors import CaploomError
from caploom.readers.image_captions import ImageCaptionsReader

DOG = Concept("1f436.png", "dog face", ("animal", "face", "pet", "puppy"))
PLAIN = Concept("26aa.png", "white circle", ())


def listed(unified: str, category: str = "Nature", google: bool = True, twitter: bool = True) -> dict[str, Any]:
    return {
        "unified": unified,
        "image": f"{unified.lower()}.png",
        "category": category,
        "has_img_google": google,
        "has_img_twitter": twitter,
    }


LISTED = [
    listed("1F436"),
    listed("2764-FE0F"),  # emojibase writes it without FE0F
    listed("1F5FF", twitter=False),
    listed("1FAE8", google=False),
    listed("1F3FB", category="Component"),
    listed("1F9CC"),  # without a name
]
WORDS = [
    {"hexcode": "1F436", "label": "dog face", "tags": ["animal", "dog", "pet", "puppy"]},
    {"hexcode": "2764", "label": "red heart"},
    {"hexcode": "1F5FF", "label": "moai", "tags": ["statue"]},
    {"hexcode": "1FAE8", "label": "shaking face", "tags": ["earthquake"]},
    {"hexcode": "1F3FB", "label": "light skin tone", "tags": ["skin"]},
]
PICTURES = ["1f436.png", "2764-fe0f.png"]


def pack(path: Path, files: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as packed:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            packed.addfile(member, io.BytesIO(data))
    return path


def drawing(colour: str) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGBA", (64, 64), colour).save(buffer, format="PNG")
    return buffer.getvalue()


def drawings(style: str, colour: str) -> dict[str, bytes]:
    folder = f"package/img/{style}/64"
    stray = {f"{folder}/../../evil.png": b"", f"package/img/{style}/sheets/1f436.png": b""}
    return {f"{folder}/{name}": drawing(colour) for name in PICTURES} | stray


@pytest.fixture
def archives(tmp_path: Path) -> dict[str, Path]:
    """The three packages in small, named as npm names them."""
    folder = tmp_path / "registry"
    folder.mkdir()
    contents = [
        {"package/emoji.json": json.dumps(LISTED).encode(), **drawings("google", "red")},
        drawings("twitter", "blue"),
        {"package/en/data.json": json.dumps(WORDS).encode()},
    ]
    return {
        package: pack(folder / f"{package}-{version}.tgz", files)
        for (package, version), files in zip(emoji.PACKAGES.items(), contents, strict=True)
    }


def install_npm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> Path:
    """A real, tiny program called npm, the only one that is found; returns the file in which it notes its calls."""
    folder, calls = tmp_path / "bin", tmp_path / "calls"
    folder.mkdir(exist_ok=True)
    npm = folder / "npm"
    npm.write_text(f'#!/bin/sh\necho "$@" >> {calls}\n{script}\n', encoding="utf-8")
    npm.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    return calls


@pytest.fixture
def npm_calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, archives: dict[str, Path]) -> Iterator[Path]:
    """npm that hands out the small packages: `npm pack NAME@VERSION --pack-destination FOLDER --silent`."""
    registry = archives["emojibase-data"].parent
    yield install_npm(tmp_path, monkeypatch, f'cp "{registry}/$(echo "$2" | tr @ -).tgz" "$4"')


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_only_concepts_that_both_draw_and_that_have_a_name_are_taken() -> None:
    concepts = common_concepts(LISTED, WORDS)
    assert [concept.label for concept in concepts] == ["dog face", "red heart"]
    assert concepts[0].tags == ("animal", "dog", "pet", "puppy")
    assert concepts[1].tags == ()


def test_training_caption_is_the_label_and_at_most_two_new_tags() -> None:
    caption = training_caption(DOG)
    assert caption.startswith("dog face")
    words = caption.removeprefix("dog face").replace(",", " ").split()
    assert len(words) <= 2
    assert set(words) <= {"animal", "pet", "puppy"}
    assert training_caption(DOG) == caption
    assert training_caption(PLAIN) == "white circle"


@pytest.mark.parametrize("concept", [DOG, PLAIN])
def test_evaluation_captions_are_three_different_ones_that_all_name_the_thing(concept: Concept) -> None:
    captions = evaluation_captions(concept)
    assert len(set(captions)) == 3
    assert captions[0] == concept.label
    assert all(concept.label in caption for caption in captions)
    assert evaluation_captions(concept) == captions
    assert not any("{" in caption for caption in captions)


def test_fetched_emoji_are_read_by_the_readers_of_the_config(tmp_path: Path, npm_calls: Path) -> None:
    out = tmp_path / "emoji"
    assert fetch_emoji(out) == 2
    for name, captions in (("google", 1), ("twitter", 3)):
        rows = list(ImageCaptionsReader(root=out / name, captions=out / f"{name}.json").rows())
        assert [row.image for row in rows] == [picture for picture in PICTURES for _ in range(captions)]
        assert all(row.reason is None for row in rows)
        for row in rows:
            assert row.path is not None
            with Image.open(row.path) as image:
                assert image.size == (64, 64)
    attribution = (out / "ATTRIBUTION.md").read_text(encoding="utf-8")
    assert "Apache" in attribution
    assert "CC-BY 4.0" in attribution
    assert not list(tmp_path.rglob("evil.png"))


def test_second_fetch_asks_nothing_and_changes_nothing(tmp_path: Path, npm_calls: Path) -> None:
    out = tmp_path / "emoji"
    fetch_emoji(out)
    before, calls = contents(out), npm_calls.read_text()
    assert fetch_emoji(out) == 2
    assert contents(out) == before
    assert npm_calls.read_text() == calls


@pytest.mark.parametrize("marker", ['{"format": 1, "packages": {}, "concepts": 2}', "[]", "{", None])
def test_an_older_or_unfinished_folder_is_fetched_again(tmp_path: Path, npm_calls: Path, marker: str | None) -> None:
    out = tmp_path / "emoji"
    fetch_emoji(out)
    before = contents(out)
    (out / emoji.MARKER).unlink()
    (out / "google.json").write_text("[", encoding="utf-8")
    if marker is not None:
        (out / emoji.MARKER).write_text(marker, encoding="utf-8")
    assert fetch_emoji(out) == 2
    assert contents(out) == before


def test_npm_missing_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(CaploomError, match="npm is not installed"):
        fetch_emoji(tmp_path / "emoji")
    assert not (tmp_path / "emoji").exists()


def test_npm_failing_is_said_in_its_own_last_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install_npm(tmp_path, monkeypatch, "echo 'npm error network is unreachable' >&2; exit 7")
    with pytest.raises(CaploomError, match=r"exit code 7\): npm error network is unreachable"):
        fetch_emoji(tmp_path / "emoji")
    assert not (tmp_path / "emoji").exists()


def test_a_damaged_archive_and_a_missing_picture_are_said(tmp_path: Path, archives: dict[str, Path]) -> None:
    without = {name: data for name, data in drawings("twitter", "blue").items() if "2764" not in name}
    pack(archives["emoji-datasource-twitter"], without)
    with pytest.raises(CaploomError, match=r"lacks 1 pictures that it lists, such as 2764-fe0f.png"):
        write_emoji(archives, tmp_path / "emoji")
    archives["emoji-datasource-google"].write_bytes(b"no archive")
    with pytest.raises(CaploomError, match=r"package/emoji.json cannot be read"):
        write_emoji(archives, tmp_path / "emoji")
    assert not (tmp_path / "emoji").exists()
