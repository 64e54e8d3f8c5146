from benchmarks.child import Job
from benchmarks.merge import caploom_merge, seed
from benchmarks.merge.benchmark import Merge
from benchmarks.merge.inputs import shard_files


def test_a_caption_less_shows(tmp_path):
    Merge().prepare(tmp_path, 20)
    whole = seed.run(Job(tmp_path, 20, {"images": 20})).result
    options = {"images": 20, "json": True}
    assert caploom_merge.merge(Job(tmp_path, 20, options)).result.items() >= whole.items()
    (_, first), (_, second), *_ = shard_files(tmp_path, 20)[1]
    first.write_bytes(second.read_bytes())  # one captioner says what another did
    assert caploom_merge.merge(Job(tmp_path, 20, options)).result["checksum"] != whole["checksum"]
