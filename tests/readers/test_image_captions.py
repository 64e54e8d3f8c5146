import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from lacking import lacks_only_a_caption

from caploom.errors import SourceError
from caploom.readers.image_captions import ImageCaptionsReader


@pytest.fixture
def read(tmp_path):
    """Reads a caption file of the given name and text, over an image root with one picture."""
    root = tmp_path / "images"
    root.mkdir()
    (root / "a.png").write_bytes(b"x")

    def rows(name, text, **keys):
        (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
        return list(ImageCaptionsReader(root=root, captions=tmp_path / name, **keys).rows())

    return rows


def test_json_rows_come_in_their_order_with_absolute_paths(read, tmp_path):
    rows = read("c.json", json.dumps([{"image": "a.png", "caption": "one"}, {"image": "b/c.png", "caption": "two"}]))
    assert [(row.row, row.image, row.caption) for row in rows] == [(1, "a.png", "one"), (2, "b/c.png", "two")]
    assert rows[1].path == str(tmp_path / "images" / "b" / "c.png")


@pytest.mark.parametrize("delimiter", [",", "\t"])
def test_csv_and_tsv_are_read_by_their_header(read, delimiter):
    text = delimiter.join(["caption", "image"]) + "\n" + delimiter.join(["hi", "a.png"]) + "\n"
    rows = read("c.csv" if delimiter == "," else "c.tsv", "\ufeff" + text)
    assert [(row.image, row.caption) for row in rows] == [("a.png", "hi")]


def test_other_keys_can_be_named(read):
    rows = read("c.json", '[{"file": "a.png", "text": "hi"}]', image_key="file", caption_key="text")
    assert rows[0].caption == "hi"


@pytest.mark.parametrize(
    ("record", "reason", "words"),
    [
        ("[1]", "row_not_an_object", "c.json, row 1: it is a list"),
        ('{"caption": "x"}', "no_image_path", '"image" must be the path of an image but is missing'),
        ('{"image": 3, "caption": "x"}', "no_image_path", "is a number"),
        ('{"image": "a.png"}', "caption_not_text", '"caption" must be text but is missing'),
        ('{"image": "a.png", "caption": null}', "caption_not_text", "missing"),
        ('{"image": "a.png", "caption": 5}', "caption_not_text", "a number"),
        ('{"image": "a.png", "caption": {"x": 1}}', "caption_not_text", "an object"),
        ('{"image": "a.png", "caption": [["x"]]}', "caption_not_text", "a list"),
        ('{"image": "a.png", "captions": []}', "no_caption", '"captions" is empty, so the image has no caption'),
        ('{"image": "a.png", "caption": " \\n"}', "empty_caption", "the caption is empty"),
        ('{"image": "../a.png", "caption": "x"}', "path_leaves_root", "leaves the image root"),
        ('{"image": "/etc/passwd", "caption": "x"}', "path_leaves_root", "leaves the image root"),
        ('{"image": "a\\u0000.png", "caption": "x"}', "path_leaves_root", "leaves the image root"),
    ],
)
def test_a_bad_row_carries_its_reason_and_the_rest_goes_on(read, record, reason, words):
    rows = read("c.json", f'[{record}, {{"image": "a.png", "caption": "good"}}]')
    assert rows[0].reason == reason
    assert (rows[0].path is not None) == lacks_only_a_caption(reason, words)
    assert words in rows[0].detail
    assert rows[1].caption == "good"


def test_a_link_out_of_the_root_leaves_it(read, tmp_path):
    (tmp_path / "secret.png").write_bytes(b"x")
    (tmp_path / "images" / "link.png").symlink_to(tmp_path / "secret.png")
    assert read("c.json", '[{"image": "link.png", "caption": "x"}]')[0].reason == "path_leaves_root"


@pytest.mark.parametrize("cut", [5, 40, 60, 88])
def test_a_json_that_ends_in_the_middle_keeps_its_whole_rows_and_says_where_it_ends(read, cut):
    whole = json.dumps([{"image": "a.png", "caption": f"number {number}"} for number in range(4)])
    rows = read("c.json", whole[:cut])
    good = [row for row in rows if row.reason is None]
    assert [row.caption for row in good] == [f"number {number}" for number in range(len(good))]
    assert len(good) == whole[:cut].count("}")
    assert rows[-1].reason == "json_ends_early"
    assert f"ends in the middle after row {len(good)}" in rows[-1].detail


def test_json_with_an_error_in_it_says_so(read):
    rows = read("c.json", '[{"image": "a.png", "caption": "x"}, oops]')
    assert [row.reason for row in rows] == [None, "invalid_json"]


def test_a_lone_surrogate_in_a_caption_can_be_kept_in_a_table(read):
    row = read("c.json", '[{"image": "a.png", "caption": "x\\ud83dy"}]')[0]
    assert row.reason is None
    assert row.caption.encode("utf-8")


def test_an_empty_array_has_no_rows(read):
    assert read("c.json", "[]") == []


@pytest.mark.parametrize(("name", "text"), [("c.json", '{"a": 1}'), ("c.csv", "x,y\n1,2\n"), ("c.txt", "hello")])
def test_a_file_of_another_form_is_refused_by_name(read, name, text):
    with pytest.raises(SourceError, match=name.replace(".", r"\.")):
        read(name, text)


def test_a_missing_root_or_file_is_refused_by_name(tmp_path):
    with pytest.raises(SourceError, match="image root is not a folder"):
        list(ImageCaptionsReader(root=tmp_path / "none", captions=tmp_path / "c.json").rows())
    with pytest.raises(SourceError, match="there is no such file"):
        list(ImageCaptionsReader(root=tmp_path, captions=tmp_path / "c.json").rows())


@pytest.mark.parametrize("key", ["caption", "captions"])
def test_a_list_of_captions_is_a_row_for_each_with_the_records_number(read, key):
    rows = read(
        "c.json", json.dumps([{"image": "a.png", key: ["one", "two", " "]}, {"image": "a.png", key: ["three"]}])
    )
    assert [(row.row, row.caption, row.reason) for row in rows] == [
        (1, "one", None),
        (1, "two", None),
        (1, None, "empty_caption"),
        (2, "three", None),
    ]


@pytest.mark.parametrize(
    ("column", "values"), [("captions", [["one", "two"], []]), ("raw_caption", ["one", ""]), ("text", ["one", ""])]
)
def test_parquet_tables_are_read_whatever_stage_wrote_them(read, tmp_path, column, values):
    table = pa.table({"image_id": ["x", "y"], "image": ["a.png", "b.png"], column: values})
    pq.write_table(table, tmp_path / "table.parquet")
    keys = {"caption_key": "text"} if column == "text" else {}
    rows = read("c.parquet", (tmp_path / "table.parquet").read_bytes(), **keys)
    assert (rows[0].image, rows[0].caption) == ("a.png", "one")
    assert rows[-1].reason == ("no_caption" if column == "captions" else "empty_caption")


def test_parquet_without_the_column_or_that_is_none_is_refused_by_name(read, tmp_path):
    pq.write_table(pa.table({"image": ["a.png"], "text": ["x"]}), tmp_path / "table.parquet")
    with pytest.raises(SourceError, match=r'c\.parquet: it has no column "caption" \(columns: image, text\)'):
        read("c.parquet", (tmp_path / "table.parquet").read_bytes())
    with pytest.raises(SourceError, match=r"c\.parquet: it cannot be read as Parquet"):
        read("c.parquet", "no table")
