"""Recall@1/5/10 of both directions from the same embeddings: how long it takes, and in how much memory."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.cases import BenchmarkError, Case, Outcome, Skipped, Verdict
from benchmarks.retrieval.inputs import write_inputs

_DENSE_LIMIT = 10_000  # images whose whole matrix, with five captions each, is made: 2 GB
_SIDES = ("caploom", "clip_benchmark", "dense_topk", "matmul", "matmul_blocks")


class Retrieval:
    """Sizes are images, with five captions each.

    `only` names the cases to run, separated by commas.
    """

    size = 5_000
    quick_size = 500
    tiny_size = 40
    packages = ("numpy", "torch", "clip-benchmark")

    def __init__(self, only: str = "") -> None:
        self._only = [name for name in only.split(",") if name]
        for name in self._only:
            if name not in _SIDES:
                raise BenchmarkError(f'--set only={only}: there is no case "{name}"; known: {", ".join(_SIDES)}.')

    def prepare(self, folder: Path, size: int) -> None:
        """Embeddings of images and captions."""
        write_inputs(folder, size)

    def cases(self, size: int) -> Sequence[Case | Skipped]:
        """See the module `sides`."""
        chosen: list[Case | Skipped] = []
        for name in self._only or _SIDES:
            if size > _DENSE_LIMIT and name not in ("caploom", "matmul_blocks"):
                chosen.append(Skipped(name, "it holds the whole matrix, 20 bytes for each image times each image."))
            else:
                chosen.append(Case(name, "pairs", f"benchmarks.retrieval.sides:{name}"))
        return chosen

    def conclude(self, outcomes: Mapping[str, Outcome]) -> Verdict:
        """CPU seconds of each over ours, memory, and whether the six recalls are the same to six decimals."""
        verdict = Verdict()
        ours = outcomes.get("caploom")
        if ours is None:
            return verdict
        for name, outcome in outcomes.items():
            if outcome is ours:
                continue
            verdict.ratios[f"vs_{name}"] = outcome.cpu_s / ours.cpu_s
            theirs = outcome.results[0]["recalls"]
            if theirs:
                verdict.ratios[f"memory_vs_{name}"] = outcome.peak_rss_mb / ours.peak_rss_mb
                verdict.equal[name] = all(
                    abs(mine - other) < 1e-6
                    for run in ours.results
                    for mine, other in zip(run["recalls"], theirs, strict=True)
                )
        return verdict
