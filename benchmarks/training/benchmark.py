"""Training a small CLIP on 500-pixel JPEGs beside open_clip's own training command, and what both learn."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.cases import BenchmarkError, Case, Outcome, Skipped, Verdict
from benchmarks.training.inputs import write_learning_inputs, write_speed_inputs

_PEER, _OURS = "open_clip_train", "caploom"
_WAYS = {"streamed": {}, "in_memory": {"image_cache_mb": 2048}, "resized": {"resized": True}}
_SEEDS = (0, 1, 2)
_SCENES = 3000
_ENOUGH_SCENES = 1000  # to learn something from
_MARGIN = 0.02  # of Recall@1: beside this and the spread over seeds, a difference is one


class Training:
    """Sizes are images; each is seen `epochs` times by each side, in batches of 64, with one worker process each.

    `cores` is 2 (the worker decodes beside the training) or 1 (both share a core, as many do where a GPU trains faster
    than its processors decode); `part` is `speed`, `learning` or `all`. Below `quick_size`, one number of cores and one
    seed run.
    """

    size = 1024
    quick_size = 128
    tiny_size = 64
    packages = ("torch", "open_clip_torch", "pillow")

    def __init__(self, part: str = "all", cores: str = "1,2", epochs: str = "2") -> None:
        if part not in ("speed", "learning", "all"):
            raise BenchmarkError(f"--set part={part}: write speed, learning or all.")
        self._part, self._epochs = part, int(epochs)
        self._cores = [int(each) for each in cores.split(",")]

    def prepare(self, folder: Path, size: int) -> None:
        """Pictures, the peer's table, our training set with five captions an image, and our resized images."""
        if self._part != "learning":
            write_speed_inputs(folder / "speed", size)
        if self._part != "speed":
            write_learning_inputs(folder / "learning", scenes=_scenes(size))

    def cases(self, size: int) -> Sequence[Case | Skipped]:
        """Each side on each number of cores; ours in three ways; then the seeds."""
        found: list[Case] = []
        few = slice(1 if size < self.quick_size else None)
        for cores in self._cores[few] if self._part != "learning" else []:
            options = {"cores": cores, "epochs": self._epochs}
            found.append(_case(f"{_PEER}_{cores}_core", "open_clip_train:speed", options))
            for way, settings in _WAYS.items():
                found.append(_case(f"{_OURS}.{way}_{cores}_core", "caploom_trainer:speed", {**options, **settings}))
        for seed in _SEEDS[few] if self._part != "speed" else ():
            found.append(_case(f"{_PEER}_learning_{seed}", "open_clip_train:learning", {"seed": seed}))
            found.append(_case(f"{_OURS}_learning_{seed}", "caploom_trainer:learning", {"seed": seed}))
        return found

    def conclude(self, outcomes: Mapping[str, Outcome]) -> Verdict:
        """Samples a second, ours over the peer's; the share of time waiting for data; Recall@1 of both."""
        verdict = Verdict()
        for cores in [each for each in self._cores if f"{_PEER}_{each}_core" in outcomes]:
            peer = outcomes[f"{_PEER}_{cores}_core"]
            verdict.ratios[f"data_wait_{_PEER}_{cores}_core"] = peer.median("data_wait")
            for way in _WAYS:
                ours = outcomes[f"{_OURS}.{way}_{cores}_core"]
                verdict.ratios[f"vs_open_clip_train_{way}_{cores}_core"] = ours.rate / peer.rate
                verdict.ratios[f"data_wait_{way}_{cores}_core"] = ours.median("data_wait")
                verdict.equal[f"samples_{way}_{cores}_core"] = ours.median("samples") == peer.median("samples")
        if self._part != "speed":
            self._conclude_learning(outcomes, verdict)
        return verdict

    def _conclude_learning(self, outcomes: Mapping[str, Outcome], verdict: Verdict) -> None:
        seeds = [seed for seed in _SEEDS if f"{_OURS}_learning_{seed}" in outcomes]
        recalls = {
            side: [outcomes[f"{side}_learning_{seed}"].median("recall_at_1") for seed in seeds]
            for side in (_PEER, _OURS)
        }
        for side, values in recalls.items():
            verdict.ratios[f"recall_at_1_{side}"] = sum(values) / len(values)
            verdict.ratios[f"recall_at_1_spread_{side}"] = max(values) - min(values)
        ours = outcomes[f"{_OURS}_learning_0"]
        if ours.median("scenes") < _ENOUGH_SCENES:
            return
        gap = abs(verdict.ratios[f"recall_at_1_{_OURS}"] - verdict.ratios[f"recall_at_1_{_PEER}"])
        noise = max(verdict.ratios[f"recall_at_1_spread_{side}"] for side in recalls)
        verdict.equal["recall_at_1_within_noise"] = gap <= max(noise, _MARGIN)
        verdict.equal["both_learn"] = min(map(min, recalls.values())) > 5 * ours.median("chance")


def _scenes(size: int) -> int:
    return min(_SCENES, size * 3)


def _case(name: str, target: str, options: Mapping[str, object]) -> Case:
    return Case(name, "samples", f"benchmarks.training.{target}", options)
