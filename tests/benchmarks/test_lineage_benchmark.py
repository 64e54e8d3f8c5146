from benchmarks.lineage.benchmark import Lineage


def test_a_kept_store_is_used_as_it_is(tmp_path):
    benchmark = Lineage(keep=str(tmp_path / "kept"))
    benchmark.prepare(tmp_path, 40)
    made = (tmp_path / "kept" / "inputs.json").stat().st_mtime_ns
    benchmark.prepare(tmp_path, 40)
    assert (tmp_path / "kept" / "inputs.json").stat().st_mtime_ns == made
