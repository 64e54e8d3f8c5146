"""The share of a run's time that is neither library work nor the loading of a model, by the size of its shards.

Measured is how the same pictures become captions in two ways, each in a process of its own with an empty store:

- `dagster`: the captions of a headless run (`dagster_project.headless_run`). The source is cut into shards, and the
  job `caption_shards` is executed in the process over all of them, with Dagster's instance in the store as always: its
  records of runs, events, materializations and checks, and what a materialization shows (gallery, lengths, statistics).
- `plain`: the library's functions that those assets call, in the same order: cut, ingest and check each shard, load
  the captioner once, caption and check each shard.

The plain way's time is therefore library work and the loading of the model, and what the run takes beyond it is the
share. Before that, each process does the same with four pairs, so that importing Python modules is in neither time.
Both store the same artifacts, which is what `equal` compares.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.cases import BenchmarkError, Case, Outcome, Skipped, Verdict
from benchmarks.orchestration.sides import PAIRS, WARM_UP
from benchmarks.pictures import write_pictures

_LEAST = 4  # pairs of a shard

CAPTIONERS: dict[str, dict[str, Any]] = {
    "tiny": {
        "model": "demo:tiny-llava",
        "prompt": "Describe <image> in English:",
        "decoding": {"max_new_tokens": 44},
        "batch_size": 256,
    },
    "import": {"backend": "import", "captions": PAIRS, "root": "pictures"},
}
"""By what `--set captioner` says, a captioner as the YAML has it."""


class Orchestration:
    """Sizes are pairs; they are cut into shards of a hundredth, of a tenth and of all of them, at least four.

    `captioner` is `tiny` (the demo's LLaVA, loaded and run on each picture) or `import` (captions that are there
    already: hardly any library work, so the share is as large as it gets).
    """

    size = 10_000
    quick_size = 1_000
    tiny_size = 12
    packages = ("dagster", "transformers", "pyarrow")

    def __init__(self, captioner: str = "tiny") -> None:
        if captioner not in CAPTIONERS:
            raise BenchmarkError(f"--set captioner={captioner}: write {' or '.join(CAPTIONERS)}.")
        self._captioner = CAPTIONERS[captioner]

    def prepare(self, folder: Path, size: int) -> None:
        """Pictures of 320 x 240 pixels, each with a caption."""
        files = write_pictures(folder / "pictures", size, width=320, height=240)
        rows = [{"image": file.name, "caption": f"picture {number}"} for number, file in enumerate(files)]
        for name, count in ((PAIRS, size), (WARM_UP, _LEAST)):
            (folder / name).write_text(json.dumps(rows[:count]), encoding="utf-8")

    def cases(self, size: int) -> Sequence[Case | Skipped]:
        """Both ways at each size of shards."""
        return [
            Case(
                f"{way}_{pairs}",
                "pairs",
                f"benchmarks.orchestration.sides:{way}",
                {"pairs": pairs, "captioner": self._captioner},
            )
            for pairs in _shard_sizes(size)
            for way in ("dagster", "plain")
        ]

    def conclude(self, outcomes: Mapping[str, Outcome]) -> Verdict:
        """The shares of wall and of CPU seconds, what a shard costs, and whether the artifacts are the same."""
        verdict = Verdict()
        for name, run in outcomes.items():
            way, _, pairs = name.partition("_")
            if way != "dagster":
                continue
            plain = outcomes[f"plain_{pairs}"]
            verdict.ratios |= {
                f"overhead_{pairs}": 1 - plain.wall_s / run.wall_s,
                f"overhead_cpu_{pairs}": 1 - plain.cpu_s / run.cpu_s,
                f"overhead_s_a_shard_{pairs}": (run.wall_s - plain.wall_s) / run.median("shards"),
                f"model_load_s_{pairs}": plain.median("load_s"),
            }
            verdict.equal[f"artifacts_{pairs}"] = all(
                each["artifacts"] == plain.results[0]["artifacts"] for each in [*run.results, *plain.results]
            )
        return verdict


def _shard_sizes(size: int) -> list[int]:
    return sorted({max(_LEAST, size // 100), max(_LEAST, size // 10), size})
