import hashlib
import json
import subprocess
import sys
import zlib

import fsspec
import pytest
from pydantic import TypeAdapter, ValidationError

from caploom.common.hashing import fingerprint
from caploom.errors import SourceError
from caploom.readers.image_captions import ImageCaptionsReader
from caploom.readers.registry import Reader
from caploom.readers.source_version import source_version

URL = "http://example.org/pictures/caf%C3%A9.jpg?w=200"


@pytest.fixture
def read(tmp_path):
    (tmp_path / "images").mkdir()

    def rows(name, text, **keys):
        (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
        return list(ImageCaptionsReader(root=tmp_path / "images", captions=tmp_path / name, **keys).rows())

    return rows


def said(rows):
    return [(row.row, row.image, row.caption if row.reason is None else row.reason) for row in rows]


def test_each_bad_line_of_json_lines_is_a_row_and_the_rest_goes_on(read):
    lines = [
        b'\xef\xbb\xbf{"image": "a.png", "caption": "one"}',
        b"",
        b'{"image": "b.png", "caption": ',
        b"[" * 100_000,
        b'{"image": "caf\xe9.png", "caption": "x"}',
        b"1" * 5_000,
        b"null",
        b'{"image": "c.png", "caption": ["two", "three"]}\r',
    ]
    rows = read("c.jsonl", b"\n".join(lines))
    assert said(rows) == [
        (1, "a.png", "one"),
        (2, "", "invalid_json"),
        (3, "", "invalid_json"),
        (4, "", "undecodable_text"),
        (5, "", "invalid_json"),
        (6, "", "row_not_an_object"),
        (7, "c.png", "two"),
        (7, "c.png", "three"),
    ]
    assert "c.jsonl, row 4: it is not UTF-8" in rows[3].detail


def test_a_line_without_end_is_a_bad_row_of_its_own(read, monkeypatch):
    monkeypatch.setattr("caploom.readers.caption_tables.LONGEST_LINE", 1000)
    long = json.dumps({"image": "a.png", "caption": "x" * 3000})
    rows = read("c.jsonl", f'{long}\n{{"image": "b.png", "caption": "two"}}\n{long}')
    assert said(rows) == [(1, "", "line_too_long"), (2, "b.png", "two"), (3, "", "line_too_long")]


@pytest.mark.parametrize("name", ["c.json", "c.jsonl", "c.csv", "c.tsv"])
def test_a_caption_of_a_megabyte_is_read(read, name):
    caption = "word " * 210_000
    delimiter = "\t" if name == "c.tsv" else ","
    record = json.dumps({"image": "a.png", "caption": caption})
    text = {"c.json": f"[{record}]", "c.jsonl": record}.get(name, f"image{delimiter}caption\na.png{delimiter}{caption}")
    assert [row.caption for row in read(name, text)] == [caption]


def test_the_first_rule_that_begins_a_path_rewrites_it_before_the_root_is_checked(read, tmp_path):
    rules = [{"from": "/data/cc3m/train/", "to": "t/"}, {"from": "/data/cc3m/", "to": ""}, {"from": "x", "to": "../"}]
    records = [{"image": name, "caption": "c"} for name in ("/data/cc3m/train/a.png", "/data/cc3m/b.png", "xa.png")]
    rows = read("c.json", json.dumps(records), rewrite=rules)
    root = str(tmp_path / "images")
    assert [row.path for row in rows] == [f"{root}/t/a.png", f"{root}/b.png", None]
    assert rows[0].image == "/data/cc3m/train/a.png"
    assert "the path 'xa.png', rewritten to '../a.png', leaves the image root" in rows[2].detail


@pytest.mark.parametrize("rule", [{"from": "a"}, {"from": "a", "to": "b", "too": "c"}, "a"])
def test_a_rule_of_another_form_is_refused(tmp_path, rule):
    with pytest.raises(ValidationError, match="rewrite"):
        ImageCaptionsReader(root=tmp_path, captions=tmp_path / "c.json", rewrite=[rule])


def test_a_table_without_header_finds_the_downloaded_files(read, tmp_path):
    table = f'" a quote \t{URL}\n\na dog\thttp://[x\nno url\n\tz.jpg\ncut\tu\tv\n'
    keys = {"columns": ["caption", "url"], "image_key": "url"}
    rows = read("cc3m.tsv", table, **keys, downloaded_as="img2dataset")
    assert said(rows) == [
        (1, "00000/000000000.jpg", '" a quote '),
        (2, "00000/000000001.jpg", "a dog"),
        (3, "", "no_image_path"),
        (4, "00000/000000003.jpg", "empty_caption"),
        (5, "u", "too_many_fields"),
    ]
    assert rows[0].path == str(tmp_path / "images/00000/000000000.jpg")


@pytest.mark.parametrize(
    ("template", "name"),
    [
        ("{row:08d}.jpg", "00000001.jpg"),
        ("url_name", "café.jpg"),
        ("{stem}-{index}{suffix}", "café-0.jpg"),
        ("{md5}", hashlib.md5(URL.encode()).hexdigest()),
        ("{sha1}.jpg", hashlib.sha1(URL.encode()).hexdigest() + ".jpg"),
        ("{sha256}.jpg", hashlib.sha256(URL.encode()).hexdigest() + ".jpg"),
        ("crc32", str(zlib.crc32(URL.encode()))),
    ],
)
def test_downloaders_name_files_by_number_hash_or_url(read, template, name):
    rows = read("c.csv", f"url,caption\n{URL},x\n", image_key="url", downloaded_as=template)
    assert said(rows) == [(1, name, "x")]


def test_a_url_cannot_name_a_file_outside_the_root(read):
    text = "url,caption\nhttp://x/..,x\nhttp://x/%2e%2e%2f%2e%2e%2fetc%2fpasswd,x\nhttp://x/,x\n"
    rows = read("c.csv", text, image_key="url", downloaded_as="url_name")
    assert [row.reason for row in rows] == ["path_leaves_root", "path_leaves_root", "no_image_path"]


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"downloaded_as": "img.jpg"}, 'the template "img.jpg" has no field'),
        ({"downloaded_as": "{url}.jpg"}, "has the field {url}"),
        ({"downloaded_as": "{row:x.jpg"}, "cannot be read"),
        ({"downloaded_as": "{md5:09d}"}, "cannot be read"),
        ({"columns": ["caption", "url"]}, 'columns: "image" is not among them'),
        ({"columns": ["image", "text"]}, 'columns: "caption" is not among them'),
        ({"columns": ["image", "caption"], "captions": "c.json"}, "only a `.csv` or `.tsv` can lack a header"),
    ],
)
def test_settings_that_fit_no_table_are_refused(tmp_path, keys, words):
    with pytest.raises(ValidationError) as raised:
        ImageCaptionsReader(**{"root": tmp_path, "captions": tmp_path / "c.tsv", **keys})
    assert words in str(raised.value)


def test_quotes_enclose_fields_where_the_table_has_a_header_or_the_yaml_says_so(read):
    assert said(read("c.tsv", 'image\tcaption\na.png\t"b\nc"\n')) == [(1, "a.png", "b\nc")]
    columns = ["image", "caption"]
    assert said(read("c.tsv", 'a.png\t"b"\n', columns=columns)) == [(1, "a.png", '"b"')]
    assert said(read("c.tsv", 'a.png\t"b"\n', columns=columns, quotes=True)) == [(1, "a.png", "b")]
    assert said(read("c.csv", 'a.png,"b"\n', columns=columns)) == [(1, "a.png", "b")]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"b.png,a dog, running", "too_many_fields"),
        (b"b.png,caf\xe9", "undecodable_text"),
        (b"caf\xe9.png,x", "undecodable_text"),
        (b"b.png", "caption_not_text"),
        (b"b.svg,x", "svg_not_accepted"),
        (b"b.png#bytes=0+10,x", "unusable_name"),
    ],
)
def test_a_bad_line_of_a_csv_is_a_row_with_its_reason(read, line, reason):
    rows = read("c.csv", b"image,caption\na.png,one\n" + line + b"\nc.png,two,,\n")
    assert [row.caption or row.reason for row in rows] == ["one", reason, "two"]
    assert (rows[1].path is None) == (line != b"b.png")  # which only lacks its caption


def test_a_quote_that_is_never_closed_is_said_and_swallows_no_rows_in_silence(read):
    rows = read("c.csv", 'image,caption\na.png,one\nb.png,"two\nc.png,three\n')
    assert said(rows) == [(1, "a.png", "one"), (2, "", "invalid_csv")]
    assert "cannot be read after row 1 (a quote is opened and never closed)" in rows[1].detail


@pytest.mark.parametrize("text", ["", "image,caption", 'image,"caption\na.png,x\n'])
def test_a_csv_without_rows_or_with_a_damaged_header_is_empty_or_refused(read, text):
    if text == "image,caption":
        assert read("c.csv", text) == []
    else:
        with pytest.raises(SourceError, match=r"has no column \"(image|caption)\" \(columns: (none|image)\)"):
            read("c.csv", text)


def test_a_column_that_stands_twice_is_read_by_its_last(read):
    assert said(read("c.csv", "image,image,caption\nz.png,a.png,x\n")) == [(1, "a.png", "x")]


def test_a_name_of_a_lone_surrogate_can_be_kept_in_a_table(read):
    row = read("c.jsonl", '{"image": "x\\ud83dy.png", "caption": "x"}')[0]
    assert (row.reason, row.image) == ("unusable_name", "x?y.png")
    assert row.detail.encode("utf-8")


def test_a_path_that_is_a_range_of_a_link_opens_nothing_outside_the_root(read, tmp_path):
    (tmp_path / "secret.png").write_bytes(b"secret")
    (tmp_path / "images" / "link.png").symlink_to(tmp_path / "secret.png")
    assert read("c.json", '[{"image": "link.png#bytes=0+6", "caption": "x"}]')[0].path is None


@pytest.mark.parametrize("name", ["c.json", "c.jsonl", "c.csv"])
def test_captions_and_images_may_lie_in_object_storage(name, tmp_path):
    record = '{"image": "a/b.png", "caption": "one"}'
    text = {"c.json": f"[{record}]", "c.jsonl": record, "c.csv": "image,caption\na/b.png,one\n"}[name]
    memory = fsspec.filesystem("memory")
    memory.pipe(f"/tables/{name}", text.encode())
    memory.pipe("/tables/images/a/b.png", b"x")
    (tmp_path / name).write_text(text)
    try:
        reader = ImageCaptionsReader(root="memory://tables/images", captions=f"memory://tables/{name}")
        assert [(row.path, row.caption) for row in reader.rows()] == [("memory://tables/images/a/b.png", "one")]
        before = source_version(reader)
        memory.pipe(f"/tables/{name}", text.replace("one", "two").encode())
        assert source_version(reader) != before
    finally:
        memory.rm("/tables", recursive=True)
    with pytest.raises(SourceError, match="memory://tables/images: the image root is not a folder"):
        list(reader.rows())


def test_a_source_without_the_newer_keys_keeps_its_fingerprint(tmp_path):
    reader = ImageCaptionsReader(root="/data/images", captions="/data/c.json")
    as_before = {
        "reader": "image_captions",
        "root": "/data/images",
        "captions": "/data/c.json",
        "image_key": "image",
        "caption_key": "caption",
    }
    assert reader.fingerprinted() == as_before
    rewritten = ImageCaptionsReader(root="/data/images", captions="/data/c.json", rewrite=[{"from": "a", "to": "b"}])
    assert fingerprint(rewritten.fingerprinted()) != fingerprint(as_before)
    again = TypeAdapter(Reader).validate_python(rewritten.fingerprinted())
    assert again == rewritten


_READ = """
import resource, sys
from pydantic import TypeAdapter
from caploom.readers.registry import Reader
reader, folder, file = sys.argv[1:]
rows = TypeAdapter(Reader).validate_python({"reader": reader, "root": folder, "captions": file}).rows()
next(rows)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
count = 1 + sum(1 for _ in rows)
print(count, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in KiB there alone")
@pytest.mark.parametrize("name", ["json", "jsonl", "csv", "coco", "karpathy"])
def test_a_file_of_any_size_is_read_in_bounded_memory(tmp_path, name):
    caption = "a long caption " * 1_000
    record = {"image": "a.png", "caption": caption}
    one = {
        "json": json.dumps(record),
        "jsonl": json.dumps(record) + "\n",
        "csv": f"a.png,{caption}\n",
        "coco": json.dumps({"image_id": 1, "caption": caption}),
        "karpathy": json.dumps({"filename": "a.png", "split": "test", "sentences": [{"raw": caption}]}),
    }[name]
    start, between, end = {
        "json": ("[", ",", "]"),
        "jsonl": ("", "", ""),
        "csv": ("image,caption\n", "", ""),
        "coco": ('{"annotations": [', ",", '], "images": [{"id": 1, "file_name": "a.png"}]}'),
        "karpathy": ('{"images": [', ",", "]}"),
    }[name]
    count = 50 * 2**20 // len(one)
    file = tmp_path / f"c.{name if name in ('json', 'jsonl', 'csv') else 'json'}"
    file.write_text(start + between.join([one] * count) + end)
    reader = name if name in ("coco", "karpathy") else "image_captions"
    command = [sys.executable, "-c", _READ, reader, str(tmp_path), str(file)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    rows, grown = done.stdout.split()
    assert int(rows) == count
    assert int(grown) < 20, f"it grew by {grown} MiB over a file of 50"


def conversation(*texts):
    return [{"from": ("human", "gpt")[number % 2], "value": text} for number, text in enumerate(texts)]


@pytest.mark.parametrize("name", ["c.json", "c.jsonl"])
def test_a_caption_key_with_dots_leads_into_a_record(read, name):
    records = [
        {"image": "a.png", "conversations": conversation("<image>\nDescribe.", "one", "Why?", "two")},
        {"image": "b.png", "conversations": conversation("<image>\nDescribe.")},
        {"image": "c.png", "conversations": "none"},
        {"image": "d.png", "conversations.1.value": "three"},
        {"conversations": conversation("How are you?", "Well.")},
    ]
    text = json.dumps(records) if name == "c.json" else "\n".join(map(json.dumps, records))
    rows = read(name, text, caption_key="conversations.1.value")
    assert said(rows) == [
        (1, "a.png", "one"),
        (2, "b.png", "caption_not_text"),
        (3, "c.png", "caption_not_text"),
        (4, "d.png", "three"),
        (5, "", "no_image_path"),
    ]
    assert rows[1].lacks_only_a_caption
    assert '"conversations.1.value" must be text but is missing' in rows[1].detail


def test_a_caption_key_with_dots_leads_into_a_column_of_parquet(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    records = [{"image": "a.png", "conversations": conversation("Describe.", "one"), "id": 1}]
    pq.write_table(pa.Table.from_pylist(records), tmp_path / "c.parquet")
    reader = ImageCaptionsReader(root=tmp_path, captions=tmp_path / "c.parquet", caption_key="conversations.1.value")
    assert said(reader.rows()) == [(1, "a.png", "one")]
    with pytest.raises(SourceError, match=r'no column "talks.1.value" \(columns: image, conversations, id\)'):
        list(reader.model_copy(update={"caption_key": "talks.1.value"}).rows())
