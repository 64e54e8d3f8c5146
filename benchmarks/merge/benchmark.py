"""The merge into a training set, as Parquet and as JSON, compared with the released code's load, extend and dump."""

import re
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from benchmarks.cases import BenchmarkError, Case, Outcome, Skipped, Verdict
from benchmarks.merge.caploom_merge import write_merged
from benchmarks.merge.inputs import CAPTIONS_AN_IMAGE, CHECKED, write_inputs

_SIZES = (100_000, 300_000, 1_000_000, 3_000_000)
_SEED_LIMIT = 1_000_000


class Merge:
    """Sizes are images, with five captions each. Smaller sizes are measured too, to see how it grows.

    `sizes` names those to measure instead, separated by commas: a run of 3,000,000 need not do the smaller ones again.
    `ray=no` leaves the cluster out.
    """

    size = 1_000_000
    quick_size = 20_000
    tiny_size = 300
    packages = ("pyarrow", "numpy")

    def __init__(self, sizes: str = "", ray: str = "yes") -> None:
        if ray not in ("yes", "no"):
            raise BenchmarkError(f"--set ray={ray}: write yes or no.")
        self._ray = ray == "yes"
        if not re.fullmatch(r"(\d+(,\d+)*)?", sizes):
            raise BenchmarkError(f"--set sizes={sizes}: write numbers of images, as in sizes=100000,3000000.")
        self._only = [int(each) for each in sizes.split(",") if each]

    def prepare(self, folder: Path, size: int) -> None:
        """Shards, the released code's JSON files, and finished training sets for the JSON writer."""
        sizes = self._sizes(size)
        write_inputs(folder, sizes)
        for images in sizes:
            (folder / f"rows-{images}").mkdir()
            write_merged(folder, images, folder / f"rows-{images}", json=False)

    def cases(self, size: int) -> Sequence[Case | Skipped]:
        """See the modules beside this one."""
        cases = [case for images in self._sizes(size) for case in _cases(images)]
        return [*cases, _ray_case(self._sizes(size)[-1])] if self._ray else cases

    def _sizes(self, size: int) -> list[int]:
        return sorted(self._only) or [*(each for each in _SIZES if each < size), size]

    def conclude(self, outcomes: Mapping[str, Outcome]) -> Verdict:
        """CPU seconds of the released code over ours, and how memory grows with the size."""
        verdict = Verdict()
        sizes = sorted({run.results[0]["images"] for run in outcomes.values()})
        compared = [images for images in sizes if _name("seed", images) in outcomes][-1:]
        for images in compared:
            seed = outcomes[_name("seed", images)]
            for ratio, case in (
                ("parquet_vs_seed", "caploom.parquet"),
                ("seed_json_vs_seed", "caploom.json"),
                ("parquet_and_json_vs_seed", "caploom.parquet_and_json"),
            ):
                verdict.ratios[ratio] = seed.cpu_s / outcomes[_name(case, images)].cpu_s
        for name in [name for name in outcomes if name.startswith("caploom.ray")]:
            images = outcomes[name].results[0]["images"]
            local = outcomes[_name("caploom.parquet_and_json", images)]
            verdict.ratios["ray_wall_vs_one_process"] = outcomes[name].wall_s / local.wall_s
            verdict.equal["ray_files_vs_one_process"] = all(
                run["files"] == local.results[0]["files"] for run in outcomes[name].results
            )
        for images in sizes:
            verdict.ratios[f"parquet_us_a_caption_{_short(images)}"] = (
                outcomes[_name("caploom.parquet", images)].cpu_s / images / CAPTIONS_AN_IMAGE * 1e6
            )
        largest, tenth = sizes[-1], next((each for each in sizes if each * 3 >= sizes[-1]), sizes[0])
        if tenth < largest:
            verdict.ratios[f"parquet_memory_{_short(largest)}_vs_{_short(tenth)}"] = (
                outcomes[_name("caploom.parquet", largest)].peak_rss_mb
                / outcomes[_name("caploom.parquet", tenth)].peak_rss_mb
            )
        for name, outcome in outcomes.items():
            images = outcome.results[0]["images"]
            verdict.equal[f"{name}_complete"] = all(
                run["captions"] == images * CAPTIONS_AN_IMAGE for run in outcome.results
            )
            peer = outcomes.get(_name("seed", images))
            if images <= CHECKED and peer is not None and outcome is not peer:
                verdict.equal[f"{name}_vs_seed"] = all(
                    run["checksum"] == peer.results[0]["checksum"] for run in outcome.results
                )
        return verdict


def _cases(images: int) -> list[Case | Skipped]:
    seed: Case | Skipped = _case("seed", "seed:run", images)
    if images > _SEED_LIMIT:
        seed = Skipped(_name("seed", images), "it holds every caption in memory, about 3 GB for each million images.")
    return [
        seed,
        _case("caploom.parquet", "caploom_merge:merge", images, json=False),
        _case("caploom.json", "caploom_merge:write_json", images),
        _case("caploom.parquet_and_json", "caploom_merge:merge", images, json=True),
    ]


def _ray_case(images: int) -> Case | Skipped:
    if find_spec("ray") is None:
        return Skipped(_name("caploom.ray", images), "Ray is not installed: pip install 'caploom[ray]'.")
    return _case("caploom.ray", "ray_merge:merge", images)


def _case(name: str, target: str, images: int, **options: Any) -> Case:
    return Case(_name(name, images), "captions", f"benchmarks.merge.{target}", {"images": images, **options})


def _name(case: str, images: int) -> str:
    return f"{case}_{_short(images)}"


def _short(images: int) -> str:
    return f"{images / 1_000_000:g}m" if images >= 1_000_000 else f"{images / 1000:g}k"
