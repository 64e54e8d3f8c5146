import json

import pytest
from lacking import lacks_only_a_caption

from caploom.errors import SourceError
from caploom.readers.karpathy import KarpathyReader


def image(number, split, captions, filepath="val2014"):
    sentences = [{"raw": text, "tokens": text.split(), "imgid": number, "sentid": number} for text in captions]
    record = {"filename": f"{number}.jpg", "split": split, "sentences": sentences, "sentids": [], "imgid": number}
    return {**record, "filepath": filepath} if filepath else record


IMAGES = [
    image(1, "test", ["one", "two"]),
    image(2, "restval", ["three"]),
    image(3, "train", ["four"]),
    image(4, "test", ["five", "six"], filepath=None),
]


@pytest.fixture
def read(tmp_path):
    root = tmp_path / "images"
    root.mkdir()

    def rows(content, **keys):
        text = content if isinstance(content, str) else json.dumps({"images": content, "dataset": "coco"})
        (tmp_path / "dataset.json").write_text(text)
        return list(KarpathyReader(reader="karpathy", root=root, captions=tmp_path / "dataset.json", **keys).rows())

    return rows


def test_only_the_splits_captions_are_rows_with_the_images_place_in_the_file(read, tmp_path):
    rows = read(IMAGES)
    assert [(row.row, row.image, row.caption) for row in rows] == [
        (1, "val2014/1.jpg", "one"),
        (1, "val2014/1.jpg", "two"),
        (4, "4.jpg", "five"),
        (4, "4.jpg", "six"),
    ]
    assert rows[0].path == str(tmp_path / "images" / "val2014" / "1.jpg")


def test_a_list_of_splits_is_read_as_one(read):
    assert [row.caption for row in read(IMAGES, split=["train", "restval"])] == ["three", "four"]


def test_the_first_captions_of_each_image_are_taken_and_an_image_with_fewer_fails(read):
    rows = read([image(1, "test", ["a", "b", "c"]), image(2, "test", ["d"])], captions_per_image=2)
    assert [(row.caption, row.reason) for row in rows] == [("a", None), ("b", None), (None, "too_few_captions")]
    assert "val2014/2.jpg has 1 of the 2 captions" in rows[-1].detail


@pytest.mark.parametrize(
    ("record", "reason", "words"),
    [
        ({"filename": "x.jpg", "split": "test"}, "no_caption", '"sentences" is empty'),
        ({"filename": "x.jpg", "split": "test", "sentences": "text"}, "no_caption", '"sentences" is empty'),
        ({"filename": "x.jpg", "split": "test", "sentences": [{}]}, "caption_not_text", "is missing"),
        ({"filename": "x.jpg", "sentences": [{"raw": "x"}]}, "no_split", 'it has no "split"'),
        ({"split": "test", "sentences": [{"raw": "x"}]}, "no_image_path", '"filename" must be the path'),
        ({**image(1, "test", ["x"]), "filename": "../../x"}, "path_leaves_root", "leaves the image root"),
        (7, "row_not_an_object", "it is a number"),
    ],
)
def test_a_bad_record_is_a_row_with_its_reason_and_the_rest_goes_on(read, record, reason, words):
    rows = read([record, image(2, "test", ["good"])])
    assert (rows[0].reason, rows[0].row) == (reason, 1)
    assert (rows[0].path is not None) == lacks_only_a_caption(reason, words)
    assert words in rows[0].detail
    assert rows[1].caption == "good"


def test_an_unknown_split_lists_the_files_own(read):
    with pytest.raises(SourceError, match=r'split "tests"; its splits and their images: test \(2\), restval \(1\), tr'):
        read(IMAGES, split="tests")


@pytest.mark.parametrize("content", ["[]", '{"annotations": []}'])
def test_a_file_of_another_form_is_refused(read, content):
    with pytest.raises(SourceError, match="not a Karpathy split file"):
        read(content)


def test_a_file_cut_in_the_middle_keeps_its_whole_images_and_says_so(read):
    text = json.dumps({"images": IMAGES})
    rows = read(text[: text.index("restval") + 20])
    assert [row.caption for row in rows] == ["one", "two", None]
    assert rows[-1].reason == "json_ends_early"


@pytest.mark.parametrize("order", [("dataset", "images"), ("images", "dataset")])
def test_the_datasets_name_is_found_before_or_after_the_images(read, tmp_path, order):
    sentences = [image(1, "test", ['a "dataset": "flickr8k" sign [here]'])]
    whole = {"images": sentences, "dataset": "coco"}
    read(json.dumps({key: whole[key] for key in order}))
    reader = KarpathyReader(reader="karpathy", root=tmp_path, captions=tmp_path / "dataset.json")
    assert reader.dataset() == "coco"
    (tmp_path / "dataset.json").write_text(json.dumps({"images": sentences}))
    assert reader.dataset() is None
