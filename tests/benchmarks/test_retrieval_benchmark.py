import pytest

from benchmarks.cases import BenchmarkError
from benchmarks.child import Job
from benchmarks.harness import run_benchmark
from benchmarks.retrieval import sides
from benchmarks.retrieval.benchmark import Retrieval
from benchmarks.retrieval.inputs import write_inputs


def test_all_sides_find_the_same_and_not_everything(tmp_path):
    report = run_benchmark("retrieval", Retrieval(), size=40, repeats=1, warm_up=False, say=lambda line: None)
    assert report["equal"] == {"clip_benchmark": True, "dense_topk": True}
    assert {"vs_clip_benchmark", "vs_dense_topk", "vs_matmul"} <= set(report["ratios"])
    write_inputs(tmp_path, 300)
    recalls = sides.caploom(Job(tmp_path, 300, {})).result["recalls"]
    assert 0 < recalls[0] < recalls[2]


def test_only_named_cases_run():
    assert [case.name for case in Retrieval("caploom,matmul").cases(40)] == ["caploom", "matmul"]
    with pytest.raises(BenchmarkError, match='there is no case "faiss"'):
        Retrieval("faiss")
