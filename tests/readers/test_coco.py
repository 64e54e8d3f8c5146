import json

import pytest
from lacking import lacks_only_a_caption

from caploom.errors import SourceError
from caploom.readers.coco import CocoReader

IMAGES = [{"id": 9, "file_name": "000000000009.jpg", "coco_url": "http://x"}, {"id": 25, "file_name": "25.jpg"}]
ANNOTATIONS = [
    {"id": 1, "image_id": 25, "caption": "a giraffe"},
    {"id": 2, "image_id": 9, "caption": "a meal"},
    {"id": 3, "image_id": 25, "caption": "two giraffes"},
]


@pytest.fixture
def read(tmp_path):
    root = tmp_path / "train2017"
    root.mkdir()

    def rows(content):
        text = content if isinstance(content, str) else json.dumps(content)
        (tmp_path / "captions.json").write_text(text)
        return list(CocoReader(reader="coco", root=str(root), captions=str(tmp_path / "captions.json")).rows())

    return rows


def said(rows):
    return [(row.row, row.image, row.caption if row.reason is None else row.reason) for row in rows]


@pytest.mark.parametrize("order", [("info", "images", "annotations"), ("annotations", "licenses", "images")])
def test_each_annotation_is_a_row_whether_the_images_stand_before_or_after(read, tmp_path, order):
    whole = {"images": IMAGES, "annotations": ANNOTATIONS, "info": {"images": [1]}, "licenses": []}
    rows = read({key: whole[key] for key in order})
    assert said(rows) == [(1, "25.jpg", "a giraffe"), (2, "000000000009.jpg", "a meal"), (3, "25.jpg", "two giraffes")]
    assert rows[0].path == str(tmp_path / "train2017" / "25.jpg")


@pytest.mark.parametrize(
    ("images", "annotations", "expected", "words"),
    [
        ([], [{"image_id": 7, "caption": "x"}], (1, "", "no_image"), '"images" has no image with the id 7'),
        ([], [{"image_id": [9], "caption": "x"}], (1, "", "no_image"), "no image with the id [9]"),
        ([], [3], (1, "", "row_not_an_object"), "captions.json, row 1: it is a number"),
        ([], [{"image_id": 9}], (1, "000000000009.jpg", "caption_not_text"), "missing"),
        ([{"id": 9, "file_name": "y"}], [], (3, "", "repeated_id"), "the id 9 is already in row 1"),
        ([{"file_name": "y"}], [], (3, "", "no_image_id"), '"id" must be a number or text but is missing'),
        ([{"id": 1}], [{"image_id": 1, "caption": "x"}], (1, "", "no_image_path"), '"file_name" must be the path'),
        (
            [{"id": 1, "file_name": "../y.jpg"}],
            [{"image_id": 1, "caption": "x"}],
            (1, "../y.jpg", "path_leaves_root"),
            "",
        ),
        ([{"id": 1, "file_name": "y.jpg"}], [], (3, "y.jpg", "no_caption"), "has no caption"),
    ],
)
def test_a_bad_record_is_a_row_with_its_reason_and_the_rest_goes_on(read, images, annotations, expected, words):
    rows = read({"images": IMAGES + images, "annotations": annotations + ANNOTATIONS})
    assert len(rows) == len(ANNOTATIONS) + 1
    (bad,) = [row for row in rows if row.reason is not None]
    assert (bad.row, bad.image, bad.reason) == expected
    assert (bad.path is not None) == lacks_only_a_caption(bad.reason, words)
    assert words in bad.detail


def test_a_file_that_is_cut_off_says_so_once(read):
    text = json.dumps({"images": IMAGES, "annotations": ANNOTATIONS})
    rows = read(text[: text.index("two")])
    assert [row.caption or row.reason for row in rows] == ["a giraffe", "a meal", "json_ends_early"]
    rows = read(text[: text.index("25.jpg")])
    assert [row.reason for row in rows] == ["json_ends_early", "no_caption"]


@pytest.mark.parametrize("content", ["[]", '{"pictures": []}'])
def test_a_file_of_another_form_is_refused(read, content):
    with pytest.raises(SourceError, match="not a COCO caption file"):
        read(content)
