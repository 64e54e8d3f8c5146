import json
import os
import sys

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from lacking import lacks_only_a_caption

from caploom.errors import SourceError
from caploom.readers.image_folder import ImageFolderReader


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "images"


@pytest.fixture
def write(folder):
    """Writes files, named by their paths below the folder, of a text or bytes."""

    def files(contents):
        for name, content in contents.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content if isinstance(content, bytes) else content.encode())

    return files


def read(folder, **keys):
    return list(ImageFolderReader(root=str(folder), **keys).rows())


def said(rows):
    return [(row.image, row.caption if row.reason is None else row.reason) for row in rows]


def test_the_first_line_of_the_text_beside_an_image_is_its_caption(write, folder):
    write({"a.jpg": "x", "a.txt": "\n  a dog runs \nmore\n", "b/c.PNG": "x", "b/c.txt": "\ufeffa cat"})
    rows = read(folder)
    assert [(row.row, row.image, row.caption, row.path) for row in rows] == [
        (1, "a.jpg", "a dog runs", str(folder / "a.jpg")),
        (2, "b/c.PNG", "a cat", str(folder / "b/c.PNG")),
    ]


def test_lines_of_keys_are_ignored_or_are_captions_in_the_languages_asked_for(write, folder):
    write({"a.jpg": "x", "a.txt": "E=mc2 on a board\nde=Eine Tafel\nscore=0.3\nfr = non\nFR=Un tableau\nit=\n"})
    assert said(read(folder)) == [("a.jpg", "E=mc2 on a board")]
    rows = read(folder, translations=["DE", "fr", "it"])
    assert [row.caption for row in rows] == ["E=mc2 on a board", "Eine Tafel", "Un tableau"]


def test_a_text_of_translations_alone_has_no_other_caption(write, folder):
    write({"a.jpg": "x", "a.txt": "de=Ein Hund"})
    assert [row.caption for row in read(folder, translations=["de"])] == ["Ein Hund"]


def test_names_that_share_a_beginning_keep_their_own_texts(write, folder):
    names = ["a", "a.b", "a.b.c", "ab", "a b", "_DSC1"]
    write({f"{name}.jpg": "x" for name in names} | {f"{name}.txt": f"of {name}" for name in names})
    write({"a.jpg.d/a.jpg": "x", "a.jpg.d/a.txt": "inner", "a.png": "x"})
    assert dict(said(read(folder))) == {f"{name}.jpg": f"of {name}" for name in names} | {
        "a.png": "of a",
        "a.jpg.d/a.jpg": "inner",
    }


@pytest.mark.parametrize(
    ("files", "reason", "words"),
    [
        ({"x.jpg": "x"}, "no_caption", "'x.jpg': there is no text next to it"),
        ({"x.jpg": "x", "x.txt": " \n"}, "no_caption", "'x.jpg': its text is empty"),
        ({"x.txt": "a dog"}, "no_image", "'x.txt': there is no image of this name"),
        ({"x.svg": "<svg/>", "x.txt": "a dog"}, "svg_not_accepted", "'x.svg': SVG is a vector format"),
        ({"x.jpg": "x", "x.txt": b"caf\xe9"}, "undecodable_text", "x.txt': it is not UTF-8"),
        ({"x.jpg": "x", "x.txt": b"a" * (16 * 2**20 + 1)}, "text_too_long", "longer than 16 MiB"),
        ({"x.pdf": "x"}, "not_an_image", "'x.pdf': by its name it is not an image"),
        ({"x#row=1:y.jpg": "x", "x#row=1:y.txt": "a"}, "unusable_name", "rename it"),
    ],
)
def test_a_file_without_its_other_half_or_of_no_use_is_a_bad_row_and_the_rest_goes_on(
    write, folder, files, reason, words
):
    write({**files, "z.jpg": "x", "z.txt": "good"})
    bad, good = read(folder)
    assert (bad.reason, good.caption) == (reason, "good")
    assert (bad.path is not None) == lacks_only_a_caption(reason, words)
    assert words in bad.detail


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_text_that_may_not_be_read_is_a_bad_row(write, folder):
    write({"x.jpg": "x", "x.txt": "a"})
    (folder / "x.txt").chmod(0)
    assert read(folder)[0].reason == "unreadable_text"


def test_files_of_other_programs_are_passed_over(write, folder):
    write({"a.jpg": "x", "a.txt": "one", "a.json": "{}", "_SUCCESS": "", ".hidden.jpg": "x", ".d/a.jpg": "x"})
    write({"00000.parquet": "x", "00000_stats.json": "{}", "caploom.yaml": "", "caploom.schema.json": "{}"})
    assert said(read(folder)) == [("a.jpg", "one")]


def test_names_in_any_script_with_newlines_and_quotes_are_read(write, folder):
    names = ["кошка", "猫 🐈", "a \"b\"\n'c'", "e\u0301", "-rf", "a%20b&c;"]
    write({f"{name}.jpg": "x" for name in names} | {f"{name}.txt": name.replace("\n", " ") for name in names})
    assert dict(said(read(folder))) == {f"{name}.jpg": name.replace("\n", " ") for name in names}


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names")
def test_a_name_that_is_no_utf8_is_a_bad_row_that_tables_can_hold(write, folder):
    write({"a.jpg": "x", "a.txt": "one"})
    (folder / os.fsdecode(b"caf\xe9.jpg")).touch()
    rows = read(folder)
    assert said(rows) == [("a.jpg", "one"), ("caf?.jpg", "unusable_name")]
    assert all((row.image + (row.detail or "")).encode("utf-8") for row in rows)


def test_utf16_texts_are_read(write, folder):
    write({"a.jpg": "x", "a.txt": "ein Hund".encode("utf-16")})
    assert said(read(folder)) == [("a.jpg", "ein Hund")]


def test_a_caption_of_a_megabyte_is_read(write, folder):
    write({"a.jpg": "x", "a.txt": "word " * 210_000})
    assert len(read(folder)[0].caption) == 1_049_999


METADATA = {
    "metadata.jsonl": '{"file_name": "a.jpg", "text": "one"}\n\n{"file_name": "in/b.jpg", "text": ["two", "three"]}\n',
    "metadata.csv": 'file_name,caption\na.jpg,one\nin/b.jpg,"two"\nin/b.jpg,three\n',
}


@pytest.mark.parametrize("name", ["metadata.jsonl", "metadata.csv", "metadata.parquet"])
def test_metadata_files_of_the_hub_say_the_captions_of_the_images_of_their_folder(write, folder, name):
    write({"part/a.jpg": "x", "part/in/b.jpg": "x", "part/c.jpg": "x", "d.jpg": "x", "d.txt": "own"})
    if name in METADATA:
        write({f"part/{name}": METADATA[name]})
    else:
        names = ["a.jpg", "in/b.jpg", "in/b.jpg"]
        pq.write_table(pa.table({"file_name": names, "text": ["one", "two", "three"]}), folder / "part" / name)
    rows = read(folder)
    assert said(rows) == [
        ("part/a.jpg", "one"),
        ("part/in/b.jpg", "two"),
        ("part/in/b.jpg", "three"),
        ("d.jpg", "own"),
        ("part/c.jpg", "no_caption"),
    ]
    assert [row.row for row in rows] == [1, 2, 3, 4, 5]
    assert rows[1].path == str(folder / "part/in/b.jpg")


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("[1]", "row_not_an_object"),
        ('{"file_name": "a.jpg"', "invalid_json"),
        ('{"text": "x"}', "no_image_path"),
        ('{"file_name": "a.jpg", "text": 3}', "caption_not_text"),
        ('{"file_name": "a.jpg", "text": " "}', "empty_caption"),
        ('{"file_name": "a.jpg", "text": []}', "no_caption"),
        ('{"file_name": "../../x.jpg", "text": "x"}', "path_leaves_root"),
        ('{"file_name": "/etc/x.jpg", "text": "x"}', "path_leaves_root"),
        ('{"file_name": "a.svg", "text": "x"}', "svg_not_accepted"),
    ],
)
def test_a_bad_line_of_metadata_is_a_row_with_its_reason(write, folder, line, reason):
    write({"a.jpg": "x", "a.txt": "own", "metadata.jsonl": f'{line}\n{{"file_name": "b.jpg", "text": "good"}}\n'})
    rows = read(folder)
    assert (rows[0].reason, rows[1].caption) == (reason, "good")
    assert "metadata.jsonl, row 1" in rows[0].detail


def test_metadata_without_captions_is_refused_by_name(write, folder):
    write({"a.jpg": "x", "metadata.csv": "file_name,label\na.jpg,3\n"})
    with pytest.raises(SourceError, match=r'metadata\.csv: the header has no column "text"'):
        read(folder)
    assert said(read(folder, caption_key="label")) == [("a.jpg", "3")]


def test_a_folder_that_is_not_there_is_refused(folder):
    with pytest.raises(SourceError, match="there is no such folder"):
        read(folder)


def test_rows_of_some_files_are_those_of_all_rows(write, folder):
    write({f"{n}.jpg": "x" for n in range(4)} | {f"{n}.txt": str(n) for n in range(3)} | {"in/metadata.jsonl": ""})
    write({"in/metadata.jsonl": '{"file_name": "a.jpg", "text": "later"}'})
    reader = ImageFolderReader(root=str(folder))

    def of(*names):
        return said(reader.rows_of([str(folder / name) for name in names]))

    assert of("2.jpg", "0.jpg") == [("0.jpg", "0"), ("2.jpg", "2")]
    assert of("3.jpg") == [("3.jpg", "no_caption")]
    assert of("in/metadata.jsonl") == [("in/a.jpg", "later")]
    assert of("1.jpg", "1.txt") == [("1.jpg", "1")]
    assert of() == []


def test_object_storage_reads_like_a_folder():
    memory = fsspec.filesystem("memory")
    for number in range(300):  # more texts than are fetched ahead
        memory.pipe(f"/folder-reader/{number:03d}.jpg", b"x")
        memory.pipe(f"/folder-reader/{number:03d}.txt", f"caption {number}".encode())
    memory.pipe("/folder-reader/sub/metadata.jsonl", json.dumps({"file_name": "m.jpg", "text": "m"}).encode())
    try:
        rows = read("memory://folder-reader")
        assert said(rows) == [
            ("sub/m.jpg", "m"),
            *((f"{number:03d}.jpg", f"caption {number}") for number in range(300)),
        ]
        assert rows[1].path == "memory://folder-reader/000.jpg"
        reader = ImageFolderReader(root="memory://folder-reader")
        assert said(reader.rows_of(["memory://folder-reader/007.jpg"])) == [("007.jpg", "caption 7")]
    finally:
        memory.rm("/folder-reader", recursive=True)
