from benchmarks.harness import run_benchmark
from benchmarks.lineage.benchmark import QUESTIONS, Lineage


def test_answers_are_those_of_a_scan(tmp_path):
    benchmark = Lineage(keep=str(tmp_path / "kept"))
    report = run_benchmark("lineage", benchmark, size=200, repeats=1, warm_up=False, say=lambda line: None)
    assert len(report["equal"]) == len(QUESTIONS)
    assert all(report["equal"].values()), report["equal"]
    assert report["ratios"]["slowest_question_s"] > 0
    made = (tmp_path / "kept" / "inputs.json").stat().st_mtime_ns
    benchmark.prepare(tmp_path, 200)
    assert (tmp_path / "kept" / "inputs.json").stat().st_mtime_ns == made
