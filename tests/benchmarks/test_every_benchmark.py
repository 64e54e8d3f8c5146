"""Every benchmark at its tiny size, so that a change of the library cannot break one unseen."""

from collections.abc import Iterator

import pytest

from benchmarks.__main__ import BENCHMARKS, load
from benchmarks.harness import run_benchmark
from benchmarks.processes import ForkedProcesses

# A cluster of Ray takes longer to start than all else; `ray` starts one, and the merge on Ray has tests of its own.
SETTINGS = {"merge": ["ray=no"]}
SLOW = {
    "captioning",
    "lineage",
    "orchestration",
    "ray",
    "scale",
    "training",
}  # they start processes that import much, or write much
FIGURES = {
    "captioning": {"vs_seed_loop", "vs_one_by_one", "engine_overhead", "resume_lookup_20k_s"},
    "shearing": {"first_sentence_vs_regex", "max_tokens_vs_hf_batch", "whole_shear_per_cpu_s"},
    "merge": {"parquet_vs_seed", "seed_json_vs_seed"},
    "retrieval": {"vs_clip_benchmark", "vs_dense_topk", "vs_matmul", "memory_vs_dense_topk"},
    "training": {"vs_open_clip_train_streamed_1_core", "data_wait_streamed_1_core", "recall_at_1_caploom"},
    "orchestration": {"overhead_4", "overhead_12", "overhead_s_a_shard_4", "model_load_s_12"},
    "ray": {"overhead", "ray_start_s", "on_ray_driver_peak_mb"},
    "ingest": {"vs_decode_only", "vs_by_hand", "check_cut_of_200", "inbox_first_scan_s"},
    "lineage": {"trace_s", "status_s", "results_s", "first_refresh_s", "trace_vs_scan"},
    "scale": {"store.4.walk_s", "ledger.4.vs_scan", "dagster.4.materializations_s", "plans_on_s3.4.plan_warm_requests"},
}
"""By benchmark, some of the figures that benchmarks/README.md names, as they are called at the tiny size."""


@pytest.fixture(scope="module")
def processes() -> Iterator[ForkedProcesses]:
    """One process that keeps the libraries loaded, for all benchmarks."""
    with ForkedProcesses() as forked:
        yield forked


def test_every_benchmark_has_figures_to_hold():
    assert set(FIGURES) == set(BENCHMARKS)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if name in SLOW else []) for name in BENCHMARKS]
)
def test_a_benchmark_runs_and_both_sides_agree(name, processes):
    benchmark = load(name, SETTINGS.get(name, []))
    lines = []
    report = run_benchmark(
        name, benchmark, size=benchmark.tiny_size, repeats=1, warm_up=False, processes=processes, say=lines.append
    )
    assert set(report) == {"name", "size", "machine", "versions", "cases", "ratios", "equal"}
    assert report["size"] == benchmark.tiny_size < benchmark.quick_size < benchmark.size
    for case in report["cases"].values():
        assert set(case) == {"cpu_s", "wall_s", "peak_rss_mb", "rate", "unit", "n"}
        assert case["n"] == 1
        # A tiny case may take less time than the report has digits for.
        assert case["peak_rss_mb"] > 0 and min(case["wall_s"], case["rate"]) >= 0
        assert case["unit"].endswith("/s")
    assert set(report["ratios"]) >= FIGURES[name]
    assert all(isinstance(value, float | int) for value in report["ratios"].values())
    assert report["equal"]
    assert all(report["equal"].values()), report["equal"]
    skipped = {line.split(": ")[1].removesuffix(" is skipped") for line in lines if " is skipped: " in line}
    assert skipped.isdisjoint(report["cases"])
