import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from caploom.errors import ImageFault, SourceError
from caploom.images.location import read_location
from caploom.readers.parquet_images import ParquetReader


def rows_of(path, **options):
    return list(ParquetReader(files=str(path), **options).rows())


def test_bytes_come_back_in_any_order(tmp_path):
    images = [bytes([n]) * (n + 1) for n in range(200)]
    table = pa.table({"jpg": images, "caption": [f"c{n}" for n in range(200)], "url": ["u"] * 200})
    pq.write_table(table, tmp_path / "00000.parquet", row_group_size=70)
    rows = rows_of(tmp_path)
    assert [row.caption for row in rows] == table["caption"].to_pylist()
    assert [read_location(row.path) for row in rows] == images
    for n in (3, 199, 0, 120, 119):
        assert read_location(rows[n].path) == images[n]
    with pytest.raises(ImageFault, match="no such row"):
        read_location(rows[0].path.replace("#row=0:", "#row=200:"))


def test_the_hub_s_struct_and_lists_of_captions(tmp_path):
    image = [{"bytes": b"one", "path": "1.jpg"}, {"bytes": None, "path": "2.jpg"}]
    pq.write_table(pa.table({"image": image, "sentences": [["a", "b"], []]}), tmp_path / "x.parquet")
    rows = rows_of(tmp_path / "x.parquet")
    assert [(row.caption, row.reason) for row in rows] == [("a", None), ("b", None), (None, "no_caption")]
    assert read_location(rows[0].path) == b"one"
    with pytest.raises(ImageFault, match="no bytes"):
        read_location(rows[0].path.replace("#row=0:", "#row=1:"))


def test_paths_start_from_the_file_s_folder_or_the_root(tmp_path):
    pq.write_table(pa.table({"path": ["a.png", "../b.png"], "text": ["one", "two"]}), tmp_path / "x.parquet")
    rows = rows_of(tmp_path / "x.parquet")
    assert [(row.path, row.reason) for row in rows] == [(str(tmp_path / "a.png"), None), (None, "path_leaves_root")]
    assert rows_of(tmp_path / "x.parquet", root=str(tmp_path / "deep"))[0].path == str(tmp_path / "deep" / "a.png")


def test_a_damaged_file_is_a_bad_row_and_the_others_go_on(tmp_path):
    pq.write_table(pa.table({"jpg": [b"x"], "caption": ["c"]}), tmp_path / "b.parquet")
    (tmp_path / "a.parquet").write_bytes((tmp_path / "b.parquet").read_bytes()[:-20])
    assert [row.reason for row in rows_of(tmp_path)] == ["damaged_parquet", None]


def test_a_missing_column_names_those_that_are_there(tmp_path):
    pq.write_table(pa.table({"pixels": [b"x"], "caption": ["c"]}), tmp_path / "a.parquet")
    with pytest.raises(SourceError, match=r"columns: pixels, caption\); name it as `image_key`"):
        rows_of(tmp_path)
    assert rows_of(tmp_path, image_key="pixels")[0].caption == "c"


def test_a_missing_or_empty_caption_is_a_bad_row(tmp_path):
    pq.write_table(pa.table({"jpg": [b"x", b"y"], "caption": [None, " "]}), tmp_path / "a.parquet")
    assert [row.reason for row in rows_of(tmp_path)] == ["caption_not_text", "empty_caption"]
