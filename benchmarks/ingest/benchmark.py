"""Taking images in: the full check with SHA-256 and perceptual hash, against decoding alone and against peers."""

import os
import random
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.cases import Case, Outcome, Skipped, Verdict
from benchmarks.ingest.sides import DAMAGED
from benchmarks.pictures import write_pictures

_IMG2DATASET = "CAPLOOM_BENCH_IMG2DATASET_PYTHON"
_SIDES = ("caploom", "caploom_all_cores", "check_alone", "pillow_load", "simplejpeg_eighth", "by_hand", "damaged")
_INBOX_FILES = 25  # times the size: 100,000 pictures, each with its text
_HEADER = 700  # bytes that hold no picture


class Ingest:
    """Sizes are JPEG files of 500 x 375 pixels."""

    size = 4_000
    quick_size = 300
    tiny_size = 4
    packages = ("pillow", "simplejpeg", "imagehash", "numpy")

    def prepare(self, folder: Path, size: int) -> None:
        """The pictures; an inbox; truncated pictures, and some with flipped bits."""
        files = write_pictures(folder / "pictures", size, width=500, height=375)
        for number in range(_INBOX_FILES * size):
            file = folder / "inbox" / f"{number // 1000:04d}" / f"{number:07d}.jpg"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(b"never decoded")
            file.with_suffix(".txt").write_text(f"picture {number}", encoding="utf-8")
        choose = random.Random(0)
        for kind in ("cut", "flipped"):
            (folder / kind).mkdir()
        for number in range(DAMAGED):
            data = files[number % len(files)].read_bytes()
            (folder / "cut" / f"{number:03d}.jpg").write_bytes(data[: choose.randrange(_HEADER, len(data) - 2)])
            flipped = bytearray(data)
            for _ in range(8):
                flipped[choose.randrange(_HEADER, len(data) - 2)] ^= 1 << choose.randrange(8)
            (folder / "flipped" / f"{number:03d}.jpg").write_bytes(flipped)

    def cases(self, size: int) -> Sequence[Case | Skipped]:
        """See the module `sides`."""
        python = os.environ.get(_IMG2DATASET)
        peer: Case | Skipped = (
            Case("img2dataset", "images", "benchmarks.ingest.sides:img2dataset", python=python)
            if python
            else Skipped("img2dataset", f"{_IMG2DATASET} names no Python that has it (benchmarks/README.md).")
        )
        inbox = Case("inbox", "files", "benchmarks.ingest.sides:inbox", {"files": _INBOX_FILES * size})
        return [*(Case(name, "images", f"benchmarks.ingest.sides:{name}") for name in _SIDES), inbox, peer]

    def conclude(self, outcomes: Mapping[str, Outcome]) -> Verdict:
        """CPU seconds of each side over ours; whether the identities are the same; which damage was found."""
        ours, alone = outcomes["caploom"], outcomes["check_alone"]
        verdict = Verdict()
        decode = outcomes["pillow_load"]
        verdict.ratios["vs_decode_only"] = decode.cpu_s / ours.cpu_s
        verdict.ratios["check_alone_vs_decode_only"] = decode.cpu_s / alone.cpu_s
        verdict.ratios["check_alone_vs_eighth_only"] = outcomes["simplejpeg_eighth"].cpu_s / alone.cpu_s
        for name in ("by_hand", "img2dataset"):
            if name in outcomes:
                verdict.ratios[f"vs_{name}"] = outcomes[name].cpu_s / ours.cpu_s
                verdict.equal[name] = outcomes[name].results[0]["identities"] == ours.results[0]["identities"]
        for name in ("first_scan", "taking_scan", "next_scan"):
            verdict.ratios[f"inbox_{name}_s"] = outcomes["inbox"].median(name)
        found = outcomes["damaged"].results[0]
        verdict.ratios |= {f"{check}_of_{DAMAGED}": float(count) for check, count in found.items()}
        verdict.equal["every_cut_is_found"] = found["check_cut"] == DAMAGED
        verdict.equal["all_of_load_s_and_more"] = all(
            found[f"check_{kind}"] >= found[f"load_{kind}"] for kind in ("cut", "flipped")
        )
        return verdict
