"""Which columns of a table have the images and the captions, and how its first line is taken."""

import json

import pytest
from places import write

from caploom.errors import SourceError
from caploom.readers.img2dataset_names import check_template
from caploom.scaffold.image_roots import _DOWNLOADS, place_paths
from caploom.scaffold.tables import look_at_table


@pytest.fixture
def keys_of(tmp_path):
    def keys(name, content):
        write(tmp_path, {name: content})
        return look_at_table(str(tmp_path / name)).keys

    return keys


@pytest.mark.parametrize(
    ("record", "keys"),
    [
        ({"image": "a.png", "caption": "a dog"}, {}),
        ({"image": "a.png", "captions": ["a dog", "an animal"]}, {}),
        ({"image": "a.png", "raw_caption": "a dog", "words": 2}, {}),
        ({"image": "a.png"}, {"caption_key": "none"}),
        ({"file_name": "a.png", "text": "a dog"}, {"image_key": "file_name", "caption_key": "text"}),
        ({"url": "http://x/a.png", "image_path": "a.png", "caption": "x"}, {"image_key": "image_path"}),
        ({"URL": "http://x/a.png?w=1", "TEXT": "a dog"}, {"image_key": "URL", "caption_key": "TEXT"}),
        ({"bild": "a.JPG", "text_de": "ein Hund rennt"}, {"image_key": "bild", "caption_key": "text_de"}),
        ({"image": "2734081377", "caption": "a dog"}, {}),
        ({"image": "a.png", "caption": None, "title": "a dog"}, {"caption_key": "title"}),
        ({"image": "a.png", "id": "1 2 3 4", "split": "train"}, {"caption_key": "none"}),
    ],
)
@pytest.mark.parametrize("name", ["t.json", "t.jsonl"])
def test_the_columns_of_records(record, keys, name, keys_of):
    text = json.dumps([record]) if name == "t.json" else f"{json.dumps(record)}\n\nnot json\n"
    assert keys_of(name, text) == keys


@pytest.mark.parametrize(
    ("name", "text", "keys"),
    [
        ("t.csv", 'image,caption\na.png,"a dog, asleep"\n', {}),
        ("t.csv", "\ufeffimage,caption\r\na.png,a dog\r\n", {}),
        ("t.csv", 'a.png,"a dog, asleep"\n', {"columns": ["image", "caption"]}),
        ("t.csv", "a.png,dog\nb.png,cat\n", {"columns": ["image", "caption"]}),
        ("t.csv", "a.png,7\nb.png,8\n", {"columns": ["image", "column_2"], "caption_key": "none"}),
        ("t.tsv", "caption\turl\na dog\thttp://x/a.png\n", {"image_key": "url"}),
        ("t.tsv", '"a dog\thttp://x/a\nb\thttp://x/b\n', {"columns": ["caption", "url"], "image_key": "url"}),
        ("t.csv", 'image,caption\na.png,a dog\nb.png,"never closed\n' + "x" * 5_000_000, {}),
        (
            "t.tsv",
            "1\ta dog asleep\thttp://x/a\n",
            {"columns": ["column_1", "caption", "url"], "image_key": "url"},
        ),
    ],
)
def test_the_columns_of_lines_with_and_without_a_header(name, text, keys, keys_of):
    assert keys_of(name, text) == keys


def test_a_damaged_end_does_not_hide_the_beginning(keys_of):
    assert keys_of("t.json", '[{"image": "a.png", "caption": "x"}, {"image": ') == {}
    with pytest.raises(SourceError, match=r"t.json: the JSON is not valid JSON|t.json: the JSON ends"):
        keys_of("t.json", "[,]")


@pytest.mark.parametrize("template", _DOWNLOADS)
def test_every_naming_that_is_tried_is_one_that_the_reader_takes(template):
    check_template(template)


def test_the_root_with_the_most_images_is_found_and_the_least_is_rewritten():
    there = {f"/data/{split}/{number}.png" for split, most in (("a", 2), ("b", 9)) for number in range(most)}
    paths = [f"{number}.png" for number in range(9)]
    assert place_paths(paths, ["/data/a", "/data/b"], there.__contains__, may_rewrite=True).root == "/data/b"
    far = [f"/home/ann/data/b/{number}.png" for number in range(9)]
    assert place_paths(far, ["/data/b"], there.__contains__, may_rewrite=False) is None
    placed = place_paths(far, ["/data", "/data/b"], there.__contains__, may_rewrite=True)
    assert (placed.root, placed.found) == ("/data", 9)
    assert placed.keys == {"rewrite": [{"from": "/home/ann/data/", "to": ""}]}
