import io
import json
import tarfile
from pathlib import Path

import pytest
import webdataset
from hypothesis import given, settings
from hypothesis import strategies as st

from caploom.errors import SourceError
from caploom.images.location import read_location
from caploom.readers.webdataset import WebdatasetReader


def write_tar(path: Path, members: dict[str, bytes], **options) -> Path:
    with tarfile.open(path, "w", **options) as tar:
        for name, data in members.items():
            add(tar, name, data)
    return path


def add(tar, name, data=b"", **fields):
    member = tarfile.TarInfo(name)
    member.size = len(data)
    for key, value in fields.items():
        setattr(member, key, value)
    tar.addfile(member, io.BytesIO(data) if data else None)


def rows_of(path, **options):
    return list(WebdatasetReader(tars=str(path), **options).rows())


def test_what_webdataset_writes_comes_back_byte_for_byte(tmp_path):
    images = {f"{n:05d}": bytes([n]) * (700 + n) for n in range(30)}
    with webdataset.ShardWriter(str(tmp_path / "%04d.tar"), maxcount=12, verbose=0) as writer:
        for key, data in images.items():
            writer.write({"__key__": key, "jpg": data, "txt": f"caption {key}"})
    rows = rows_of(tmp_path)
    assert [row.caption for row in rows] == [f"caption {key}" for key in images]
    assert [read_location(row.path) for row in rows] == list(images.values())
    assert [row.row for row in rows] == list(range(1, 31))
    assert rows_of(tmp_path / "{0000..0002}.tar") == rows == rows_of(tmp_path / "*.tar")


def test_img2dataset_s_members_and_a_key_of_json(tmp_path):
    record = {"caption": "a dog", "url": "http://x/y.jpg", "status": "success", "alt": ["one", "two"]}
    members = {"000000001.jpg": b"image", "000000001.txt": b"a dog", "000000001.json": json.dumps(record).encode()}
    tar = write_tar(tmp_path / "00000.tar", members)
    assert [row.caption for row in rows_of(tar)] == ["a dog"]
    assert [row.caption for row in rows_of(tar, caption_from=["json:alt"])] == ["one", "two"]
    assert [row.reason for row in rows_of(tar, caption_from=["json:nothing"])] == ["no_caption"]


def test_a_sample_without_image_or_caption_is_a_bad_row(tmp_path):
    tar = write_tar(
        tmp_path / "a.tar", {"1.txt": b"alone", "2.jpg": b"x", "3.jpg": b"x", "3.txt": b"  ", "4.svg": b"<svg/>"}
    )
    assert [row.reason for row in rows_of(tar)] == ["no_image", "no_caption", "empty_caption", "svg_not_accepted"]


def test_members_that_leave_the_archive_are_not_read_and_the_others_are(tmp_path):
    path = tmp_path / "evil.tar"
    with tarfile.open(path, "w") as tar:
        add(tar, "../up.jpg", b"x")
        add(tar, "/etc/passwd.jpg", b"x")
        add(tar, "link.jpg", type=tarfile.SYMTYPE, linkname="/etc/passwd")
        add(tar, "hard.jpg", type=tarfile.LNKTYPE, linkname="good.jpg")
        add(tar, "pipe.jpg", type=tarfile.FIFOTYPE)
        add(tar, "folder", type=tarfile.DIRTYPE)
        add(tar, "good.jpg", b"image")
        add(tar, "good.txt", b"fine")
    rows = rows_of(path)
    assert [row.reason for row in rows] == ["unsafe_member"] * 5 + [None]
    assert rows[-1].caption == "fine"
    assert "'../up.jpg' leaves the archive" in rows[0].detail
    assert not (tmp_path.parent / "up.jpg").exists()


@pytest.mark.parametrize("at", ["data", "header", "between members", "end mark"])
def test_a_tar_that_is_cut_off_gives_its_whole_samples_and_says_so(tmp_path, at):
    whole = write_tar(tmp_path / "whole.tar", {f"{n}.{e}": b"x" * 600 for n in (1, 2) for e in ("jpg", "txt")})
    data = whole.read_bytes()
    member = 512 + 1024  # a header and its data
    cut = {"data": 3 * member + 700, "header": 3 * member + 100, "between members": 2 * member, "end mark": 4 * member}
    (tmp_path / "cut.tar").write_bytes(data[: cut[at]])
    rows = rows_of(tmp_path / "cut.tar")
    assert rows[-1].reason == "tar_ends_early"
    assert rows[0].reason is None
    assert read_location(rows[0].path) == b"x" * 600


def test_what_is_no_tar_is_said(tmp_path):
    (tmp_path / "a.tar").write_bytes(b"no tar" * 500)
    (tmp_path / "b.tar").write_bytes(b"")
    write_tar(tmp_path / "c.tar", {})
    with tarfile.open(tmp_path / "d.tar.gz", "w:gz") as tar:
        add(tar, "1.jpg", b"x")
    assert [row.reason for row in rows_of(tmp_path)] == ["not_a_tar", "not_a_tar", "compressed_tar"]


def test_without_a_tar_the_source_is_refused(tmp_path):
    with pytest.raises(SourceError, match=r"matches no file that ends in \.tar"):
        rows_of(tmp_path)
    with pytest.raises(SourceError, match="there is no such file"):
        rows_of(tmp_path / "missing.tar")


def test_a_caption_that_is_no_text_is_said_and_a_huge_one_is_not_read(tmp_path):
    members = {"1.jpg": b"x", "1.txt": b"\xff\xfe\xff", "2.jpg": b"x", "2.txt": b"a" * (5 * 2**20)}
    rows = rows_of(write_tar(tmp_path / "a.tar", members))
    assert [row.reason for row in rows] == ["undecodable_text", "no_caption", "caption_too_long", "no_caption"]


def test_it_streams(tmp_path):
    import tracemalloc

    write_tar(tmp_path / "big.tar", {f"{n:06d}.{e}": b"y" * 30 for n in range(3_000) for e in ("jpg", "txt")})
    tracemalloc.start()
    count = sum(1 for _ in WebdatasetReader(tars=str(tmp_path / "big.tar")).rows())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 3_000
    assert peak < 1_000_000  # a tarfile that remembers its members takes 2.6 MB


_NAMES = st.text(st.characters(blacklist_characters="./\0", blacklist_categories=("Cs",)), min_size=1, max_size=12)


@settings(max_examples=25, deadline=None)
@given(st.dictionaries(_NAMES, st.tuples(st.binary(min_size=1, max_size=600), _NAMES), min_size=1, max_size=5))
def test_names_of_any_script_and_any_bytes(tmp_path_factory, samples):
    folder = tmp_path_factory.mktemp("names")
    members = {}
    for key, (data, caption) in samples.items():
        members |= {f"{key}.png": data, f"{key}.txt": f"c{caption}".encode()}
    rows = rows_of(write_tar(folder / "a.tar", members))
    assert [read_location(row.path) for row in rows] == [data for data, _ in samples.values()]
    assert [row.caption for row in rows] == [f"c{caption}".strip() for _, caption in samples.values()]


def test_from_object_storage():
    import fsspec

    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        add(tar, "1.jpg", b"remote")
        add(tar, "1.txt", b"far away")
    fsspec.filesystem("memory").pipe("/wds/00000.tar", buffer.getvalue())
    (row,) = rows_of("memory://wds")
    assert (row.caption, read_location(row.path)) == ("far away", b"remote")
