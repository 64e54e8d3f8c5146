import pytest

from benchmarks.cases import BenchmarkError
from benchmarks.child import Job
from benchmarks.retrieval import sides
from benchmarks.retrieval.benchmark import Retrieval
from benchmarks.retrieval.inputs import write_inputs


def test_some_queries_are_found_first_and_more_among_ten(tmp_path):
    write_inputs(tmp_path, 300)
    recalls = sides.caploom(Job(tmp_path, 300, {})).result["recalls"]
    assert 0 < recalls[0] < recalls[2]


def test_only_named_cases_run():
    assert [case.name for case in Retrieval("caploom,matmul").cases(40)] == ["caploom", "matmul"]
    with pytest.raises(BenchmarkError, match='there is no case "faiss"'):
        Retrieval("faiss")
