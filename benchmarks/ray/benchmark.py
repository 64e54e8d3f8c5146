"""What captioning on Ray costs beside captioning in one process, with a captioner whose own time is known."""

import json
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

from benchmarks.cases import Case, Outcome, Skipped, Verdict
from benchmarks.pictures import write_pictures
from benchmarks.ray.sides import MILLISECONDS, factory, ingest


class OnRay:
    """Sizes are JPEG files of 320 x 240 pixels, captioned at one time each, one after another."""

    size = 20_000
    quick_size = 1_000
    tiny_size = 16
    packages = ("pyarrow", "openai")

    def prepare(self, folder: Path, size: int) -> None:
        """The pictures, taken in."""
        files = write_pictures(folder / "pictures", size, width=320, height=240)
        rows = [{"image": file.name, "caption": f"picture {number}"} for number, file in enumerate(files)]
        (folder / "captions.json").write_text(json.dumps(rows), encoding="utf-8")
        ingest(factory(folder, size, store=folder / "store"))

    def cases(self, size: int) -> Sequence[Case | Skipped]:
        """See the module `sides`."""
        ours = Case("local", "images", "benchmarks.ray.sides:local")
        if find_spec("ray") is None:
            return [ours, Skipped("on_ray", "Ray is not installed: pip install 'caploom[ray]'.")]
        return [ours, Case("on_ray", "images", "benchmarks.ray.sides:on_ray")]

    def conclude(self, outcomes: Mapping[str, Outcome]) -> Verdict:
        """Ray's time over the local one's less one; what the captioner alone takes of each; the drivers' memory."""
        verdict = Verdict()
        for name, outcome in outcomes.items():
            model = outcome.rate * MILLISECONDS / 1000
            verdict.ratios[f"{name}_share_of_the_captioner"] = model
            verdict.ratios[f"{name}_driver_peak_mb"] = outcome.median("driver_peak_mb")
            verdict.ratios[f"{name}_driver_growth_mb"] = outcome.median("driver_growth_mb")
        if "on_ray" in outcomes:
            ours, far = outcomes["local"], outcomes["on_ray"]
            verdict.ratios["overhead"] = far.wall_s / ours.wall_s - 1
            verdict.ratios["ray_start_s"] = far.median("ray_start_s")
            verdict.equal["captions"] = far.results[0]["captions"] == ours.results[0]["captions"]
        return verdict
