from benchmarks.captioning import memory, resume
from benchmarks.captioning.inputs import SMALL_PHOTOS, image_refs
from benchmarks.child import Job
from benchmarks.pictures import write_pictures


def test_pictures_are_the_same_every_time_and_all_different(tmp_path):
    first = write_pictures(tmp_path / "a", 3, width=64, height=48)
    again = write_pictures(tmp_path / "b", 3, width=64, height=48)
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in again]
    assert len({ref.image_id for ref in image_refs(tmp_path / "a")}) == 3


def test_the_resume_case_finds_exactly_what_is_missing(tmp_path):
    resume.write_ledger(tmp_path, 300)
    done = resume.run(Job(tmp_path, 1, {"rows": 300, "missing": 7}))
    assert done.result["right"]
    done = resume.run(Job(tmp_path, 1, {"rows": 310, "missing": 7}))
    assert not done.result["right"]  # ten more are missing than the case was told


def test_the_memory_case_captions_every_row_of_more_than_there_are_pictures(tmp_path):
    write_pictures(tmp_path / SMALL_PHOTOS, 5, width=32, height=32)
    done = memory.run(Job(tmp_path, 1, {"rows": 103}))
    assert (done.count, done.result["complete"]) == (103, True)
