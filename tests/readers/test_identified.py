import threading

import fsspec
import pytest
from evaluation_sources import write_image

from caploom.images.decode import ImageFault
from caploom.readers import identified
from caploom.readers.identified import identified_rows
from caploom.readers.image_captions import ImageCaptionsReader
from caploom.readers.source_row import SourceRow
from caploom.readers.source_version import source_version
from caploom.storage.paths import name_of
from caploom.storage.records import image_identity


@pytest.fixture
def read_files(monkeypatch):
    """The names of the files that are read."""
    names, lock = [], threading.Lock()
    read = identified.read_image_file

    def counted(path):
        with lock:
            names.append(name_of(path))
        return read(path)

    monkeypatch.setattr(identified, "read_image_file", counted)
    return names


def rows_of(folder, numbers):
    for place, number in enumerate(numbers, start=1):
        yield SourceRow(place, f"{number}.ppm", f"text {place}", str(folder / f"{number}.ppm"))


@pytest.mark.parametrize("ahead", [1, 7, 512])
def test_each_image_is_read_once_wherever_its_rows_stand(tmp_path, monkeypatch, read_files, ahead):
    monkeypatch.setattr(identified, "_ROWS_AHEAD", ahead)
    for number in range(6):
        write_image(tmp_path / f"{number}.ppm", number)
    numbers = [0, 1, 2, 3, 4, 5, 5, 4, 3, 2, 1, 0, 9, 9]
    found = list(identified_rows(rows_of(tmp_path, numbers)))
    assert [row.image for row, _ in found] == [f"{number}.ppm" for number in numbers]
    ids = [image_identity((tmp_path / f"{number}.ppm").read_bytes()) for number in numbers[:-2]]
    assert [each.image_id for _, each in found[:-2]] == ids
    assert [fault.reason for _, fault in found[-2:]] == ["missing_image"] * 2
    assert sorted(read_files) == sorted(f"{number}.ppm" for number in {*numbers})


def test_images_that_were_long_ago_are_forgotten_and_read_again(tmp_path, monkeypatch, read_files):
    monkeypatch.setattr(identified, "_ROWS_AHEAD", 2)
    monkeypatch.setattr(identified, "_REMEMBERED", 3)
    for number in range(6):
        write_image(tmp_path / f"{number}.ppm", number)
    found = list(identified_rows(rows_of(tmp_path, [0, 1, 2, 3, 4, 5, 0, 5])))
    assert found[0][1] == found[6][1] != found[7][1]
    assert (read_files.count("0.ppm"), read_files.count("5.ppm")) == (2, 1)


def test_a_row_that_was_bad_already_keeps_its_reason_and_opens_nothing(read_files):
    bad = SourceRow(3, "x", None, None, "no_caption", "row 3: it has none.")
    ((row, fault),) = identified_rows([bad])
    assert row is bad
    assert isinstance(fault, ImageFault)
    assert (fault.reason, fault.detail) == ("no_caption", "row 3: it has none.")
    assert read_files == []


def test_a_source_is_another_when_its_file_or_its_settings_change(tmp_path):
    file = tmp_path / "c.json"
    file.write_text('[{"image": "a.png", "caption": "x"}]')
    reader = ImageCaptionsReader(root=tmp_path, captions=file)
    first = source_version(reader)
    assert source_version(ImageCaptionsReader(root=tmp_path, captions=file)) == first
    assert source_version(reader.model_copy(update={"caption_key": "text"})) != first
    file.write_text('[{"image": "a.png", "caption": "y"}]')
    assert source_version(reader) != first


def test_images_in_object_storage_are_known_by_the_same_bytes(tmp_path):
    write_image(tmp_path / "1.ppm", 1)
    memory = fsspec.filesystem("memory")
    memory.pipe("/identified/1.ppm", (tmp_path / "1.ppm").read_bytes())
    try:
        rows = [SourceRow(1, name, "text", f"memory://identified/{name}") for name in ("1.ppm", "2.ppm")]
        (_, found), (_, missing) = identified_rows(rows)
    finally:
        memory.rm("/identified", recursive=True)
    assert found.image_id == image_identity((tmp_path / "1.ppm").read_bytes())
    assert missing.reason in ("missing_image", "unreadable_image")
    assert "memory://identified/2.ppm" in missing.detail
