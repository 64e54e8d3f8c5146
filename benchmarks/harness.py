"""Runs a benchmark's cases side by side: fresh processes, interleaved, medians, memory of the whole process tree."""

import json
import platform
import tempfile
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil

from benchmarks.cases import Benchmark, BenchmarkError, Case, Outcome, Skipped, Verdict, median
from benchmarks.processes import FreshProcesses, Processes


def run_benchmark(
    name: str,
    benchmark: Benchmark,
    *,
    size: int,
    repeats: int,
    warm_up: bool = True,
    processes: Processes | None = None,
    say: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Run a benchmark and return its report in the one shape of all (benchmarks/README.md).

    Every round runs each case once, in turn backwards and forwards, so that what else the machine does in the meantime
    falls on all of them. The first round is thrown away unless `warm_up` is False. Cases run in `processes`, fresh ones
    unless given. Raises `BenchmarkError` when a case fails.
    """
    with tempfile.TemporaryDirectory(prefix=f"caploom-{name}-") as folder:
        started = time.perf_counter()
        benchmark.prepare(Path(folder), size)
        say(f"{name}: inputs of size {size:,} made in {time.perf_counter() - started:.1f} s")
        cases: list[Case] = []
        for case in benchmark.cases(size):
            if isinstance(case, Skipped):
                say(f"{name}: {case.name} is skipped: {case.reason}")
            else:
                cases.append(case)
        runs: dict[str, list[dict[str, Any]]] = {case.name: [] for case in cases}
        for number in range(repeats + warm_up):
            measured = number >= warm_up
            for case in cases if number % 2 == 0 else reversed(cases):
                run = _run_case(case, Path(folder), size, processes or FreshProcesses())
                say(f"{name}: {'run' if measured else 'warm-up'} of {case.name}: {run['wall_s']:.2f} s")
                if measured:
                    runs[case.name].append(run)
    outcomes = {case.name: _outcome(case, runs[case.name]) for case in cases}
    versions = {package: metadata.version(package) for package in benchmark.packages}
    for case in cases:
        versions |= runs[case.name][-1]["versions"]
    return _report(name, size, versions, outcomes, benchmark.conclude(outcomes))


def machine() -> str:
    """This machine in a line: processor, cores, memory, system, Python."""
    memory = psutil.virtual_memory().total / 2**30
    return (
        f"{_processor()}, {psutil.cpu_count()} cores, {memory:.0f} GiB, {platform.system()} {platform.machine()}, "
        f"Python {platform.python_version()}"
    )


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or "unknown processor"


def _run_case(case: Case, folder: Path, size: int, processes: Processes) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="caploom-case-") as scratch:
        report, log = Path(scratch, "report.json"), Path(scratch, "log.txt")
        job = {"target": case.target, "folder": str(folder), "size": size, "options": dict(case.options)}
        job_file = Path(scratch, "job.json")
        job_file.write_text(json.dumps({**job, "report": str(report)}), encoding="utf-8")
        status, peak = processes.run(case, job_file, log)
        if status or not report.is_file():
            tail = "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-30:])
            raise BenchmarkError(
                f"The case {case.name} ended with exit status {status}; the end of its output:\n{tail}"
            )
        run: dict[str, Any] = json.loads(report.read_text(encoding="utf-8"))
    run["peak_rss_bytes"] = max(peak, run["peak_rss_bytes"])
    return run


def _outcome(case: Case, runs: list[dict[str, Any]]) -> Outcome:
    return Outcome(
        cpu_s=median([run["cpu_s"] for run in runs]),
        wall_s=median([run["wall_s"] for run in runs]),
        peak_rss_mb=median([run["peak_rss_bytes"] for run in runs]) / 1e6,
        rate=median([run["count"] / run["wall_s"] for run in runs]),
        unit=f"{case.unit}/s",
        n=len(runs),
        results=[run["result"] for run in runs],
    )


def _report(
    name: str, size: int, versions: dict[str, str], outcomes: dict[str, Outcome], verdict: Verdict
) -> dict[str, Any]:
    return {
        "name": name,
        "size": size,
        "machine": machine(),
        "versions": versions,
        "cases": {
            case: {
                "cpu_s": round(outcome.cpu_s, 3),
                "wall_s": round(outcome.wall_s, 3),
                "peak_rss_mb": round(outcome.peak_rss_mb),
                "rate": round(outcome.rate, 2),
                "unit": outcome.unit,
                "n": outcome.n,
            }
            for case, outcome in outcomes.items()
        },
        "ratios": {ratio: round(value, 4) for ratio, value in verdict.ratios.items()},
        "equal": verdict.equal,
    }


def table(report: dict[str, Any]) -> str:
    """A report as people read it."""
    cases: dict[str, dict[str, Any]] = report["cases"]
    width = max(len(name) for name in ["case", *cases])
    lines = [
        f"{report['name']}, size {report['size']:,} ({report['machine']})",
        ", ".join(f"{package} {version}" for package, version in report["versions"].items()),
        "",
        f"{'case':{width}}  {'wall s':>9}  {'CPU s':>9}  {'peak MB':>8}  {'rate':>12}  {'':10}  n",
    ]
    for name, case in cases.items():
        lines.append(
            f"{name:{width}}  {case['wall_s']:>9.3f}  {case['cpu_s']:>9.3f}  {case['peak_rss_mb']:>8,}  "
            f"{case['rate']:>12,.1f}  {case['unit']:10}  {case['n']}"
        )
    figures = {**report["ratios"], **{f"equal: {key}": value for key, value in report["equal"].items()}}
    if figures:
        width = max(len(name) for name in figures)
        lines += ["", *(f"{name:{width}}  {value}" for name, value in figures.items())]
    return "\n".join(lines)
