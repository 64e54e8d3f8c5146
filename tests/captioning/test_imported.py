import csv
import json
import shutil
import subprocess
import sys
import tempfile
import textwrap
from collections import Counter

import pyarrow as pa
import pytest

from caploom.captioning import imported_rows
from caploom.captioning.backend import ImageRef, load_backend
from caploom.captioning.imported import ImportBackend
from caploom.captioning.settings import ImportedCaptions
from caploom.errors import CaptionerError, StoreError
from caploom.images.decode import read_image_file
from caploom.questions.failures import current_failures, unmatched_imports
from caploom.stages.captions import caption_shard, read_captions
from caploom.stages.raw_pairs import ingest_shard, ingested_shards, read_pairs
from caploom.stages.shards import create_new_shards
from caploom.storage.manifest import MANIFEST
from caploom.storage.records import FAILURES, PAIRS
from caploom.storage.store import Store
from caploom.storage.tables import write_table


@pytest.fixture(autouse=True)
def temporary_folder(tmp_path, monkeypatch):
    """Where the backends' databases lie, so that tests see what is left of them."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@pytest.fixture
def source(write_source):
    return write_source(6)


@pytest.fixture
def factory(source, make_factory):
    return ingested(make_factory(source))


@pytest.fixture
def opened(source, factory, tmp_path):
    """Opens the backend over a file of captions, written from rows (JSON) or given as text."""
    backends = []

    def open_(rows, name="llava.json", **settings):
        text = rows if isinstance(rows, str) else json.dumps(rows)
        (tmp_path / name).write_text(text, encoding="utf-8")
        chosen = {"root": source / "images", **settings}
        backend = ImportBackend(ImportedCaptions(backend="import", captions=tmp_path / name, **chosen), factory.store)
        backends.append(backend)
        return backend

    yield open_
    for backend in backends:
        backend.close()


def ingested(factory):
    for shard in create_new_shards(factory):
        ingest_shard(factory, shard)
    return factory


def refs_of(factory):
    rows = [row for artifact in ingested_shards(factory) for row in read_pairs(artifact).to_pylist()]
    return [ImageRef(row["image_id"], row["path"], row["image"]) for row in rows]


def said(backend, refs):
    """image to text, and image to reason of failure; every image is in one of them once."""
    chunks = list(backend.caption(refs))
    texts = {item.ref.image: item.generation.text for chunk in chunks for item in chunk.captioned}
    reasons = {item.ref.image: item.reason for chunk in chunks for item in chunk.failed}
    assert sum(len(chunk.captioned) + len(chunk.failed) for chunk in chunks) == len(refs)
    assert texts.keys() | reasons.keys() == {ref.image for ref in refs}
    return texts, reasons


def row(image, caption="a square"):
    return {"image": image, "caption": caption}


def test_the_seeds_file_with_paths_of_another_machine_gives_every_image_its_caption(factory, opened):
    rows = [row(f"/data/cc3m/images/{number:04d}.png", f"  square {number}. \n") for number in (3, 0, 5, 1, 4, 2)]
    backend = opened(rows, rewrite={"/data/cc3m/images/": ""})
    texts, reasons = said(backend, refs_of(factory))
    assert texts == {f"{number:04d}.png": f"square {number}." for number in range(6)}
    assert reasons == {}
    assert backend.facts == {"rows": 6, "matched_rows": 6, "unmatched": {}}
    item = next(backend.caption(refs_of(factory)[:1])).captioned[0]
    assert (item.generation.tokens, item.generation.finish_reason, item.seconds) == (None, "imported", 0.0)
    assert (backend.device, backend.canary(refs_of(factory))) == ("file", None)


def test_it_is_loaded_by_its_name_in_the_yaml(source, factory, tmp_path):
    (tmp_path / "c.json").write_text(json.dumps([row("0000.png")]))
    settings = ImportedCaptions(backend="import", captions=tmp_path / "c.json", root=source / "images")
    backend = load_backend(settings, factory.store)
    assert backend.facts["matched_rows"] == 1
    backend.close()


def test_a_shard_takes_its_captions_from_the_file_and_what_did_not_fit_is_listed(source, make_factory, tmp_path):
    file = tmp_path / "llava.json"
    file.write_text(json.dumps([*(row(f"/x/{number:04d}.png", f"square {number}") for number in range(5)), row("/y")]))
    llava = {"backend": "import", "captions": str(file), "root": str(source / "images"), "rewrite": {"/x/": ""}}
    factory = ingested(make_factory(source, captioners={"llava": llava}))
    assert list(current_failures(factory)) == []
    settings = factory.config.captioners["llava"]
    made = caption_shard(factory, "llava", "shard-00000", lambda: load_backend(settings, factory.store))
    assert read_captions(made).column("text").to_pylist() == [f"square {number}" for number in range(5)]
    facts = {"rows": 6, "matched_rows": 5, "unmatched": {"path_leaves_root": 1}}
    assert made.manifest.summary["captioner_facts"] == facts
    listed = [*current_failures(factory), *unmatched_imports(factory)]
    assert [(where, bad["key"], bad["reason"]) for where, bad in listed] == [
        ("captions/llava [shard-00000]", refs_of(factory)[5].image_id, "not_in_import"),
        ("captions/llava llava.json", "6", "path_leaves_root"),
    ]


def test_the_longest_rule_wins_and_an_unused_one_is_named(factory, opened):
    backend = opened(
        [row("/a/0000.png"), row("/a/deep/0001.png"), row("0002.png")],
        rewrite={"/a/": "", "/a/deep/": "./", "/never/": "x", "/a/deep/er/": "y"},
    )
    assert list(said(backend, refs_of(factory)[:3])[0]) == ["0000.png", "0001.png", "0002.png"]
    assert backend.facts["unused_rewrites"] == ["/a/deep/er/", "/never/"]


def test_an_absolute_path_inside_the_root_is_taken_and_one_outside_is_not(source, factory, opened):
    backend = opened([row(str(source / "images" / "0000.png")), row(str(source / "captions.json"))])
    assert backend.facts == {"rows": 2, "matched_rows": 1, "unmatched": {"path_leaves_root": 1}}


def test_a_rewritten_path_cannot_leave_the_root(source, factory, opened):
    backend = opened([row("0000.png"), row("x/captions.json")], rewrite={"x/": "../"})
    (bad,) = backend.unmatched()
    assert bad["reason"] == "path_leaves_root"
    assert "'x/captions.json', rewritten to '../captions.json', leaves the image root" in bad["detail"]


def test_the_same_image_under_another_name_is_known_by_its_bytes(source, factory, opened, tmp_path):
    elsewhere = tmp_path / "copies"
    shutil.copytree(source / "images", elsewhere)
    (elsewhere / "0002.png").rename(elsewhere / "renamed.png")
    backend = opened([row("renamed.png", "two"), row("0001.png", "one")], root=elsewhere)
    texts, reasons = said(backend, refs_of(factory))
    assert texts == {"0001.png": "one", "0002.png": "two"}
    assert Counter(reasons.values()) == {"not_in_import": 4}


def test_a_copy_is_found_even_when_the_ingested_file_is_gone(source, factory, opened, tmp_path):
    shutil.copy(source / "images" / "0004.png", tmp_path / "copy.png")
    shutil.move(tmp_path / "copy.png", source / "images" / "copy.png")
    (source / "images" / "0004.png").unlink()
    assert said(opened([row("copy.png", "four")]), refs_of(factory))[0] == {"0004.png": "four"}


def test_an_ingested_path_is_not_read_and_a_file_of_another_size_neither(source, factory, opened, tmp_path):
    # Both hold now what nobody can read: whoever opens them fails.
    refs = refs_of(factory)
    for name, size in (("0000.png", None), ("other.png", 123_456)):
        path = source / "images" / name
        path.unlink(missing_ok=True)
        path.write_bytes(b"") if size is None else path.write_bytes(b"x" * size)
    backend = opened([row("0000.png", "zero"), row("other.png")])
    assert said(backend, refs[:1])[0] == {"0000.png": "zero"}
    assert backend.facts["unmatched"] == {"not_ingested": 1}


def test_images_in_a_pack_are_known_by_their_bytes_and_sizes(source, factory, opened, tmp_path, monkeypatch):
    pairs_file = ingested_shards(factory)[0].file("pairs.parquet")
    pairs, pack = read_pairs(ingested_shards(factory)[0]), tmp_path / "images.pack"
    data = [(source / "images" / image).read_bytes() for image in pairs.column("image").to_pylist()]
    pack.write_bytes(b"".join(data))
    starts = [sum(map(len, data[:number])) for number in range(len(data))]
    places = [f"{pack}#bytes={start}+{len(each)}" for start, each in zip(starts, data, strict=True)]
    write_table(pairs.set_column(PAIRS.get_field_index("path"), PAIRS.field("path"), pa.array(places)), pairs_file)
    (source / "images" / "other.png").write_bytes(b"x" * 123_456)
    read = []
    monkeypatch.setattr(imported_rows, "read_image_file", lambda path: read.append(path.name) or read_image_file(path))
    refs = refs_of(factory)
    backend = opened([row("0003.png", "three"), row("other.png")])
    assert {image: text for image, text in said(backend, refs)[0].items() if text} == {"0003.png": "three"}
    assert backend.facts["unmatched"] == {"not_ingested": 1}
    assert read == ["0003.png"]


def test_rows_without_use_are_told_with_their_reason_and_add_up(source, factory, opened):
    images = source / "images"
    (images / "strange.png").write_bytes((images / "0000.png").read_bytes()[:-1] + b"?")  # of an ingested image's size
    (images / "empty.png").write_bytes(b"")
    (images / "folder.png").mkdir()
    shutil.copy(images / "0001.png", images / "again.png")
    rows = [
        row("0001.png", " \n"),
        row("0001.png", "kept"),
        row("0001.png", "too late"),
        row("again.png", "too late too"),
        row("gone.png"),
        row("strange.png"),
        row("strange.png"),
        row("empty.png"),
        row("folder.png"),
        row("../captions.json"),
        row("0002.png", 7),
        {"caption": "x"},
        [],
        row("x" * 300 + ".png"),
    ]
    backend = opened(rows)
    bad = list(backend.unmatched())
    assert [(each["key"], each["reason"]) for each in bad] == [
        ("1", "empty_caption"),
        ("3", "repeated_image"),
        ("4", "repeated_image"),
        ("5", "missing_image"),
        ("6", "not_ingested"),
        ("7", "not_ingested"),
        ("8", "empty_image"),
        ("9", "unreadable_image"),
        ("10", "path_leaves_root"),
        ("11", "caption_not_text"),
        ("12", "no_image_path"),
        ("13", "row_not_an_object"),
        ("14", "unreadable_image"),
    ]
    assert bad[1]["detail"] == ("llava.json, row 3: the same image is already in row 2, and the first counts.")
    assert all(each["detail"].startswith(f"llava.json, row {each['key']}: ") for each in bad)
    assert pa.Table.from_pylist(bad, schema=FAILURES).num_rows == len(bad)
    facts = backend.facts
    assert facts["unmatched"] == Counter(each["reason"] for each in bad)
    assert facts["rows"] == len(rows) == facts["matched_rows"] + sum(facts["unmatched"].values())
    assert said(backend, refs_of(factory))[0] == {"0001.png": "kept"}
    failed = next(backend.caption(refs_of(factory)[:1])).failed[0]
    assert failed.detail == "0000.png: llava.json has no usable caption of this image."


@pytest.mark.parametrize(("name", "delimiter"), [("qwen.csv", ","), ("qwen.tsv", "\t")])
def test_tables_with_other_columns_are_read_too(factory, opened, tmp_path, name, delimiter):
    with (tmp_path / "written").open("w", newline="") as file:
        csv.writer(file, delimiter=delimiter).writerows([["file", "text"], ["0001.png", "one, two"], ["none.png", "x"]])
    text = (tmp_path / "written").read_text()
    backend = opened(text, name, image_key="file", caption_key="text")
    assert said(backend, refs_of(factory))[0] == {"0001.png": "one, two"}
    assert backend.facts == {"rows": 2, "matched_rows": 1, "unmatched": {"missing_image": 1}}


def test_a_damaged_json_gives_the_captions_before_the_damage(factory, opened):
    backend = opened(json.dumps([row(f"{number:04d}.png", str(number)) for number in range(4)])[:-20])
    assert said(backend, refs_of(factory))[0] == {"0000.png": "0", "0001.png": "1", "0002.png": "2"}
    assert [(each["key"], each["reason"]) for each in backend.unmatched()] == [("4", "json_ends_early")]


def test_a_csv_with_a_quote_that_nothing_closes_gives_the_captions_before_it(factory, opened):
    backend = opened('image,caption\n0000.png,zero\n0001.png,"' + "x" * 200_000, "c.csv")
    assert said(backend, refs_of(factory))[0] == {"0000.png": "zero"}
    assert [(each["key"], each["reason"]) for each in backend.unmatched()] == [("2", "invalid_csv")]


def test_when_no_row_finds_an_image_one_sentence_shows_what_was_compared(source, factory, opened, temporary_folder):
    with pytest.raises(CaptionerError) as raised:
        opened([row("/data/cc3m/0000.png"), row("/data/cc3m/0001.png")], rewrite={"/data/": "/mnt/"})
    sentence = str(raised.value)
    assert "llava.json: none of its 2 rows gives an ingested image its caption" in sentence
    assert "'/data/cc3m/0000.png' of row 1 became '/mnt/cc3m/0000.png'" in sentence
    assert f"an ingested image is at '{source / 'images' / '0000.png'}'; correct `root` or `rewrite`." in sentence
    assert list(temporary_folder.iterdir()) == []


@pytest.mark.parametrize(
    ("text", "name", "words"),
    [
        ("[]", "c.json", "it has no row that names an image; correct"),
        ("[1]", "c.json", r"no row that names an image \(c.json, row 1: it is a number but must be an object.\)"),
        ("{}", "c.json", "must be a JSON array"),
        ("a,b\n1,2\n", "c.csv", 'the header has no column "image"'),
        ("text", "c.txt", r"captions are read from .json, .jsonl, .csv, .tsv, .parquet files"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_in_a_sentence(opened, temporary_folder, text, name, words):
    with pytest.raises(CaptionerError, match=words):
        opened(text, name)
    assert list(temporary_folder.iterdir()) == []


def test_the_file_and_the_root_must_be_there(opened, tmp_path):
    with pytest.raises(CaptionerError, match="image root is not a folder; correct `root`"):
        opened([], root=tmp_path / "none")
    with pytest.raises(CaptionerError, match="there is no such file; correct `captions`"):
        ImportBackend(
            ImportedCaptions(backend="import", captions=tmp_path / "none.json", root=tmp_path),
            Store(tmp_path / "store"),
        )


def test_what_is_ingested_later_finds_its_captions_too(write_source, factory, opened, make_factory):
    backend = opened([row(f"{number:04d}.png", str(number)) for number in range(8)])
    assert backend.facts == {"rows": 8, "matched_rows": 6, "unmatched": {"missing_image": 2}}
    grown = ingested(make_factory(write_source(7)))
    assert said(backend, refs_of(grown))[0]["0006.png"] == "6"
    assert backend.facts == {"rows": 8, "matched_rows": 7, "unmatched": {"missing_image": 1}}


def test_pairs_that_a_killed_process_left_half_written_do_not_count(factory, opened):
    folder = ingested_shards(factory)[0].folder
    hidden = folder.with_name(f".{folder.name}.1.abc")
    shutil.copytree(folder, hidden)
    (hidden / "pairs.parquet").write_bytes(b"half")
    unfinished = folder.with_name("0" * 16)
    shutil.copytree(hidden, unfinished)
    (unfinished / MANIFEST).unlink()
    assert opened([row("0000.png")]).facts["matched_rows"] == 1


def test_damaged_pairs_are_told_in_a_sentence(factory, opened):
    ingested_shards(factory)[0].file("pairs.parquet").write_bytes(b"damaged")
    with pytest.raises(StoreError, match=r"pairs.parquet: it cannot be read \(.*\); delete its folder"):
        opened([row("0000.png")])


def test_a_path_that_two_versions_saw_with_different_images_is_hashed(source, factory, opened, make_factory):
    (source / "images" / "0000.png").write_bytes((source / "images" / "0005.png").read_bytes())
    folder = ingested_shards(factory)[0].folder
    later = folder.with_name("1" * 16)
    shutil.copytree(folder, later)
    pairs = read_pairs(ingested_shards(factory)[0]).to_pylist()
    five = pairs[5]["image_id"]
    write_table(pa.Table.from_pylist([{**pairs[0], "image_id": five}], schema=PAIRS), later / "pairs.parquet")
    backend = opened([row("0000.png", "it is five now")])
    assert said(backend, refs_of(factory))[0] == {"0005.png": "it is five now"}


def test_closing_leaves_nothing_behind(opened, temporary_folder):
    backend = opened([row("0000.png")])
    assert len(list(temporary_folder.iterdir())) == 1
    backend.close()
    assert list(temporary_folder.iterdir()) == []


@pytest.mark.parametrize("room", [1_000, 300_000, 1_000_000])
def test_a_full_temporary_folder_is_told_in_a_sentence(source, factory, tmp_path, room):
    (tmp_path / "big.json").write_text(
        json.dumps([row(f"{number:06d}.png", f"{number}" * 9) for number in range(9000)])
    )
    script = f"""
        import resource
        from pathlib import Path
        from caploom.captioning.imported import ImportBackend
        from caploom.captioning.settings import ImportedCaptions
        from caploom.errors import CaploomError
        from caploom.storage.store import Store
        settings = ImportedCaptions(
            backend="import", captions={str(tmp_path / "big.json")!r}, root={str(source / "images")!r}
        )
        resource.setrlimit(resource.RLIMIT_FSIZE, ({room}, {room}))
        try:
            ImportBackend(settings, Store(Path({str(factory.store.root)!r})))
        except CaploomError as error:
            print(error)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("big.json: its rows cannot be stored in the temporary folder")
    assert "make room there or name another folder in TMPDIR" in done.stdout


@pytest.mark.slow
def test_many_rows_are_never_all_in_memory(source, factory, tmp_path):
    count, shard = 200_000, 10_000
    pair = {"pair_id": "", "image": "", "raw_caption": "", "width": 1, "height": 1, "row": 1, "phash": 0}
    for start in range(0, count, shard):
        folder = factory.store.path(f"raw_pairs/many/{start}/0")
        folder.mkdir(parents=True)
        paths = ((number, f"{source}/images/many/{number:07d}.jpg") for number in range(start, start + shard))
        pairs = [{**pair, "path": path, "image_id": f"{number:064x}"} for number, path in paths]
        write_table(pa.Table.from_pylist(pairs, schema=PAIRS), folder / "pairs.parquet")
        (folder / MANIFEST).write_text("{}")
    file = tmp_path / "many.json"
    with file.open("w") as out:
        texts = (row(f"/x/{number:07d}.jpg", f"{number:064x} " * 30) for number in range(count))
        out.write("[" + ",\n".join(json.dumps(each) for each in texts) + "]")
    script = f"""
        from pathlib import Path
        import duckdb  # its own size is not what is measured
        from caploom.captioning import imported, imported_rows
        from caploom.captioning.backend import ImageRef
        from caploom.captioning.settings import ImportedCaptions
        from caploom.storage.store import Store
        settings = ImportedCaptions(
            backend="import", captions={str(file)!r}, root={str(source / "images")!r}, rewrite={{"/x": "many"}}
        )
        imported_rows._PAGE, imported_rows._MEMORY, found = 5_000, "100MB", 0
        def most():
            return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 1024  # MiB
        before = most()
        backend = imported.ImportBackend(settings, Store(Path({str(factory.store.root)!r})))
        for chunk in backend.caption(ImageRef(f"{{n:064x}}", "", "") for n in range(0, {count}, 7)):
            found += sum(each.generation.text.startswith(each.ref.image_id) for each in chunk.captioned)
        print(backend.facts["matched_rows"], found, most() - before)
        backend.close()
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, check=True)
    # DuckDB takes a script without a file for a person and draws a bar before that, where the machine is slow.
    matched, found, grown = done.stdout.split()[-3:]
    assert (int(matched), int(found)) == (count, len(range(0, count, 7)))
    assert float(grown) < 350 < file.stat().st_size / 2**20  # MiB; DuckDB takes some beyond its limit
