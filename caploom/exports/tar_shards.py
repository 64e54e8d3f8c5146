"""Exports as webdataset tar shards that open_clip trains on: a sample per image, a text per caption.

A sample `<image_id>` has the image's own bytes, `json` with every caption under its key (for a newer open_clip's
`--json-text-key 'raw;llava'`, which draws one each time it reads the sample), `txt` with one caption drawn here (for
the released open_clip, which reads nothing else), and `<key>.txt` for each caption (for other readers). A key
is the caption's source; further captions of one source are `source#2`, `source#3`.
"""

import io
import json
import tarfile
from collections import Counter
from itertools import chain, islice
from pathlib import Path

from pydantic import Field, PositiveInt

from caploom.common.names import RAW_SOURCE
from caploom.errors import ExportError
from caploom.exports.format import ExportFormat, Written, command
from caploom.exports.images import ExportImage, ImageStream, image_extension

_READ_BY_OPEN_CLIP = ("jpg", "png", "webp")
_OPEN_CLIP_WORKERS = 4  # open_clip's default, which needs at least as many shards


class WebDataset(ExportFormat):
    """`00000.tar`, `00001.tar`, ..., uncompressed, the same bytes each time, with open_clip's `sizes.json`."""

    samples_a_tar: PositiveInt = Field(default=10_000, description="Images per tar file.")
    seed: int = Field(default=0, description="Seed of the draw of the caption in `txt`.")

    def write(self, images: ImageStream, folder: Path, final: str) -> Written:
        """See the module."""
        written, keys = Written(), _Keys()
        sizes: dict[str, int] = {}  # images by tar
        extensions: Counter[str] = Counter()
        stream = iter(images)
        while (first := next(stream, None)) is not None:
            name = f"{len(sizes):05d}.tar"
            sizes[name] = 0
            with tarfile.TarFile(folder / name, "w", format=tarfile.GNU_FORMAT) as tar:
                for image, data in chain([first], islice(stream, self.samples_a_tar - 1)):
                    extension, slots = image_extension(data, image.path), keys.add(image)
                    self._add_sample(tar, image, data, extension, slots)
                    sizes[name] += 1
                    extensions[extension] += 1
                    written.captions += len(image.captions)
        (folder / "sizes.json").write_text(json.dumps(sizes, indent=1) + "\n", encoding="utf-8")
        written.images = sum(sizes.values())
        written.files = [*sizes, "sizes.json"]
        probabilities = keys.probabilities()
        written.facts = {"keys": probabilities, "images_by_extension": dict(sorted(extensions.items()))}
        written.how_to_read = _commands(final, len(sizes), probabilities, extensions)
        return written

    def _add_sample(
        self, tar: tarfile.TarFile, image: ExportImage, data: bytes, extension: str, slots: list[str]
    ) -> None:
        texts = dict(zip((f"{slot}.txt" for slot in slots), image.captions, strict=True))
        texts = {"json": _metadata(image, slots), "txt": image.captions[image.draw(self.seed)], **texts}
        _add(tar, f"{image.image_id}.{extension}", data)
        for suffix, text in texts.items():
            _add(tar, f"{image.image_id}.{suffix}", text.encode())


class _Keys:
    """The caption keys of the whole export and the probability with which the mix draws each."""

    def __init__(self) -> None:
        self._rows: Counter[tuple[str, ...]] = Counter()
        self._weights: dict[tuple[str, ...], list[float]] = {}
        self._lowered: dict[str, str] = {}

    def add(self, image: ExportImage) -> list[str]:
        """The keys of an image's captions, in their order."""
        slots = image.slots()
        for slot in slots:
            # webdataset lower-cases member names: `A.txt` and `a.txt` would be one key.
            if self._lowered.setdefault(slot.lower(), slot) != slot:
                raise ExportError(
                    f'The sources "{self._lowered[slot.lower()]}" and "{slot}" differ only in case, which webdataset '
                    "ignores: rename one of these captioners."
                )
        combination = tuple(slots)
        self._rows[combination] += 1
        sums = self._weights.setdefault(combination, [0.0] * len(slots))
        total = sum(image.weights)
        for index, weight in enumerate(image.weights):
            sums[index] += weight / total if total > 0 else 1 / len(slots)
        return slots

    def probabilities(self) -> dict[str, float]:
        """Each key's probability, raw first; they add up to 1.

        A key's share is that in the most common combination of keys that has it, so that images without one of the
        captions do not distort the mix: open_clip skips captions that an image lacks and keeps the proportions.
        """
        shares: dict[str, float] = {}
        for combination, rows in sorted(self._rows.items(), key=lambda item: (-item[1], -len(item[0]), item[0])):
            for slot, weight in zip(combination, self._weights[combination], strict=True):
                shares.setdefault(slot, weight / rows)
        total = sum(shares.values())
        ordered = sorted(shares, key=lambda slot: (slot.partition("#")[0] != RAW_SOURCE, slot))
        return {slot: round(shares[slot] / total, 6) for slot in ordered}


def _metadata(image: ExportImage, slots: list[str]) -> str:
    # No captioner's name begins with an underscore, so these keys are unused.
    facts = {"_image_id": image.image_id, "_image": image.image}
    weights = dict(zip(slots, image.rounded_weights(), strict=True))
    captions = dict(zip(slots, image.captions, strict=True))
    return json.dumps({**captions, **facts, "_weights": weights}, ensure_ascii=False)


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    # A fresh TarInfo has mode 0644, owner 0 and time 0: the same bytes on every machine.
    member = tarfile.TarInfo(name)
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))


def _commands(final: str, tars: int, probabilities: dict[str, float], extensions: Counter[str]) -> list[str]:
    shards = f"{final}/{{00000..{tars - 1:05d}}}.tar" if tars > 1 else f"{final}/00000.tar"
    workers = ["--workers", str(tars)] if tars < _OPEN_CLIP_WORKERS else []
    train = command(
        "python", "-m", "open_clip_train.main", "--dataset-type", "webdataset", "--train-data", shards, *workers
    )
    others = sorted(set(extensions) - set(_READ_BY_OPEN_CLIP))
    image_key = ["--image-key", ";".join(["jpg", "png", "jpeg", "webp", *others])] if others else []
    several = command("--json-text-key", ";".join(probabilities), "--json-text-key-probs", *probabilities.values())
    lines = [f"{train}  # released open_clip: the caption drawn into txt"]
    if others:
        lines[0] += f"; it skips the images that are {', '.join(others)}"
    newer = " ".join(part for part in (train, several, command(*image_key)) if part)
    return [*lines, f"{newer}  # newer open_clip: draws each time"]
