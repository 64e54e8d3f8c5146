"""`captioning`: Caploom's engine beside the released code's loop, a pipeline called image by image, and Data-Juicer."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from benchmarks.captioning.inputs import BATCH_SIZE, PHOTOS, SMALL_PHOTOS, model_folder
from benchmarks.captioning.resume import SHARD_ROWS, write_ledger
from benchmarks.cases import BenchmarkError, Case, Outcome, Skipped, Verdict
from benchmarks.pictures import write_pictures

_DATA_JUICER = "CAPLOOM_BENCH_DATA_JUICER_PYTHON"
_BLIP2 = "demo:tiny-minigpt-4"  # the mapper is written for BLIP-2, which MiniGPT-4's architecture is
_BLIP2_PROMPT = "###Human: Describe in English: ###Assistant:"
_BLIP2_CAP = 128  # the mapper's own
_CAP = 30  # the released code's
_FULL = 512
_SMALL_PHOTOS = 256
_MISSING_SHARE = 200  # one image of so many has no caption yet


class Captioning:
    """Sizes are images. The rows of the memory and resume cases go with them: 100,000 and 1,000,000 at size 512."""

    size = _FULL
    quick_size = 96
    tiny_size = 8
    packages = ("torch", "transformers", "pillow", "duckdb", "pyarrow")

    def __init__(self, model: str = "demo:tiny-llava", prompt: str = "Describe <image> in English:") -> None:
        self._options: dict[str, Any] = {"model": model, "prompt": prompt, "max_new_tokens": _CAP}
        try:
            self._folder = model_folder(model)
        except ValidationError as error:
            reason = error.errors()[0]["msg"].removeprefix("Value error, ")
            raise BenchmarkError(f"--set model={model}: {reason}.") from None

    def prepare(self, folder: Path, size: int) -> None:
        """Photographs of 640 x 480, small ones of 96 x 96, and a ledger."""
        write_pictures(folder / PHOTOS, size, width=640, height=480)
        write_pictures(folder / SMALL_PHOTOS, _SMALL_PHOTOS, width=96, height=96)
        write_ledger(folder, _ledger_rows(size))

    def cases(self, size: int) -> Sequence[Case | Skipped]:
        """See the modules beside this one."""
        peer = {**self._options, "model_folder": self._folder}
        rows, many = _ledger_rows(size), _memory_rows(size)
        return [
            _case("seed_loop", "seed_loop", peer),
            _case("caploom", "caploom_engine", self._options),
            _case("one_by_one", "one_by_one", peer),
            _case("caploom.overhead", "overhead", self._options),
            *_data_juicer(),
            _case("caploom.memory_tenth", "memory", {"rows": many // 10}, unit="rows"),
            _case("caploom.memory", "memory", {"rows": many}, unit="rows"),
            _case("caploom.resume", "resume", {"rows": rows, "missing": rows // _MISSING_SHARE}, unit="rows"),
        ]

    def conclude(self, outcomes: Mapping[str, Outcome]) -> Verdict:
        """Images a second over the peers', and the engine's own shares and seconds."""
        ours, overhead = outcomes["caploom"], outcomes["caploom.overhead"]
        verdict = Verdict(
            ratios={
                "vs_seed_loop": ours.rate / outcomes["seed_loop"].rate,
                "vs_one_by_one": ours.rate / outcomes["one_by_one"].rate,
            },
            equal={
                "seed_loop": _same_sentences(ours, outcomes["seed_loop"]),
                "one_by_one": _same_sentences(ours, outcomes["one_by_one"]),
            },
        )
        if "data_juicer" in outcomes:
            verdict.ratios["vs_data_juicer"] = outcomes["caploom.blip2"].rate / outcomes["data_juicer"].rate
            verdict.equal["data_juicer"] = _same_sentences(outcomes["caploom.blip2"], outcomes["data_juicer"])
        memory, resume = outcomes["caploom.memory"], outcomes["caploom.resume"]
        memory_growth = memory.peak_rss_mb / outcomes["caploom.memory_tenth"].peak_rss_mb
        rows, asked = memory.results[0]["rows"], resume.results[0]["rows"]
        verdict.ratios |= {
            "seed_loop_share_at_cap": outcomes["seed_loop"].median("share_at_cap"),
            "engine_overhead": overhead.median("overhead"),
            "engine_overhead_stopping": overhead.median("stopping"),
            "engine_overhead_main_thread": overhead.median("main_thread"),
            # At other sizes these are other figures, and have other names.
            f"memory_{_thousands(rows)}_vs_{_thousands(rows // 10)}": memory_growth,
            "resume_lookup_s" if asked == 1_000_000 else f"resume_lookup_{_thousands(asked)}_s": resume.wall_s,
        }
        verdict.equal["resume_finds_what_is_missing"] = all(each["right"] for each in resume.results)
        verdict.equal["memory_rows_complete"] = all(each["complete"] for each in memory.results)
        return verdict


def _case(name: str, module: str, options: dict[str, Any], unit: str = "images", **more: Any) -> Case:
    return Case(name, unit, f"benchmarks.captioning.{module}:run", options, **more)


def _data_juicer() -> list[Case | Skipped]:
    python = os.environ.get(_DATA_JUICER)
    if not python:
        return [
            Skipped("data_juicer", f"{_DATA_JUICER} names no Python that has py-data-juicer (benchmarks/README.md).")
        ]
    peer = {
        "model_folder": model_folder(_BLIP2),
        "prompt": _BLIP2_PROMPT,
        "photos": PHOTOS,
        "batch_size": BATCH_SIZE,
    }
    ours = {"model": _BLIP2, "prompt": _BLIP2_PROMPT, "max_new_tokens": _BLIP2_CAP}
    return [_case("data_juicer", "data_juicer", peer, python=python), _case("caploom.blip2", "caploom_engine", ours)]


def _ledger_rows(size: int) -> int:
    return max(round(1_000_000 * size / _FULL / SHARD_ROWS), 1) * SHARD_ROWS


def _memory_rows(size: int) -> int:
    step = 10_000 if size >= Captioning.quick_size else 1_000
    return max(round(100_000 * size / _FULL / step), 1) * step


def _thousands(rows: int) -> str:
    return f"{rows / 1000:g}k"


def _same_sentences(ours: Outcome, peer: Outcome) -> bool:
    """Whether every run of both sides gave every image the same first sentence."""
    return all(run["sentences"] == ours.results[0]["sentences"] for run in [*ours.results, *peer.results])
