import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from caploom.storage.records import TRAINING_ROWS
from caploom.training_set.row_files import TableFiles, caption_bytes
from caploom.training_set.training_json import TrainingJson, json_escaped

NASTY = [
    "", '"', "\\", 'say "hi"\\n', "line\nbreak", "\r\n\t\b\f", "\x00\x01\x1f\x7f", "</script>", "\u2028\u2029",
    "日本。", "🙂", "עברית", "NaN", "plain",
]  # fmt: skip


def table(rows):
    """rows: (image, captions, sources)."""
    return pa.Table.from_pylist(
        [
            {"image_id": str(number), "image": image, "path": image, "captions": captions, "sources": sources}
            | {"weights": [1.0] * len(captions)}
            for number, (image, captions, sources) in enumerate(rows)
        ],
        schema=TRAINING_ROWS,
    )


def as_json(rows):
    """The same by Python's own `json`, one object a line."""
    entries = [
        json.dumps({"image": image, "caption": caption, "source": source}, ensure_ascii=False)
        for image, captions, sources in rows
        for caption, source in zip(captions, sources, strict=True)
    ]
    return "[\n" + ",\n".join(entries) + "\n]\n" if entries else "[]\n"


def written(tmp_path, *tables):
    with TrainingJson(tmp_path / "training.json") as file:
        for each in tables:
            file.write(each)
    return (tmp_path / "training.json").read_bytes().decode("utf-8")


def test_nasty_texts_are_written_as_pythons_json_does(tmp_path):
    rows = [('a "b"\\\n.jpg', NASTY, ["raw"] * len(NASTY)), ("c.jpg", [], []), ("d.jpg", ["x", ""], ["raw", "cat"])]
    assert written(tmp_path, table(rows)) == as_json(rows)
    assert written(tmp_path, table(rows[:1]), table(rows[1:2]), table(rows[2:])) == as_json(rows)
    assert written(tmp_path, table(rows).slice(2)) == as_json(rows[2:])


def test_many_rows_go_over_the_blocks_bounds(tmp_path):
    rows = [(f"{n}.jpg", [f"raw {n}", NASTY[n % len(NASTY)]][: n % 3], ["raw", "cat"][: n % 3]) for n in range(20_000)]
    assert written(tmp_path, table(rows[:5]), table(rows[5:])) == as_json(rows)


def test_without_captions_the_array_is_empty(tmp_path):
    assert written(tmp_path) == "[]\n"
    assert written(tmp_path, table([("a.jpg", [], [])])) == "[]\n"


def test_what_breaks_off_is_no_whole_json(tmp_path):
    with pytest.raises(ValueError, match="stop"), TrainingJson(tmp_path / "x.json") as file:
        file.write(table([("a.jpg", ["x"], ["raw"])]))
        raise ValueError("stop")
    with pytest.raises(json.JSONDecodeError):
        json.loads((tmp_path / "x.json").read_text())


@settings(deadline=None, max_examples=100)
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=20), max_size=8), st.integers(0, 3))
def test_escapes_are_those_of_python(texts, start):
    expected = [json.dumps(text, ensure_ascii=False)[1:-1] for text in texts[start:]]
    assert json_escaped(pa.array(texts, pa.string()).slice(start)).to_pylist() == expected


def test_row_files_are_cut_by_the_rows_alone(tmp_path):
    rows = [(f"{n}.jpg", ["é" * (n % 40)] * (n % 4), ["raw"] * (n % 4)) for n in range(500)]
    whole = table(rows)
    assert caption_bytes(whole.slice(7, 30)).tolist() == [2 * (n % 40) * (n % 4) for n in range(7, 37)]
    contents = []
    for number, step in enumerate((500, 13, 1)):
        folder = tmp_path / str(number)
        folder.mkdir()
        files = TableFiles(folder, "rows", TRAINING_ROWS, caption_bytes, file_rows=60, file_bytes=4_000)
        for start in range(0, 500, step):
            files.write(whole.slice(start, step))
        files.close()
        paths = sorted(folder.iterdir())
        contents.append([path.read_bytes() for path in paths])
        tables = [pq.read_table(path) for path in paths]
        assert pa.concat_tables(tables).equals(whole)
        assert max(map(len, tables)) <= 60
    assert contents[0] == contents[1] == contents[2]
    assert len(contents[0]) > 500 / 60
