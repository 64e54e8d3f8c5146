import os
import shutil
from pathlib import Path

import fsspec
from filelock import FileLock

from caploom.inbox.scan import scan_inbox, unfinished_batches
from caploom.stages.raw_pairs import ingest_shard, read_pairs
from caploom.stages.shards import shard_names, sharding_lock


def test_what_is_complete_becomes_shards_and_is_taken_once(fed):
    for number in range(7):
        fed.drop(f"{number}.png", number, f"caption {number}")
    assert fed.scan().new_shards == []
    taken = fed.scan(after=11)
    assert taken.new_shards == ["inbox-00000", "inbox-00001"]
    assert [(row.image, row.caption) for row in fed.rows()] == [(f"{n}.png", f"caption {n}") for n in range(7)]
    assert fed.scan(after=100).messages == []
    assert shard_names(fed.factory) == ["inbox-00000", "inbox-00001"]


def test_a_file_that_grows_is_not_taken_before_it_rests(fed):
    data = (fed.drop("whole.png", 1)).read_bytes()
    slow = fed.inbox / "slow.png"
    slow.with_suffix(".txt").write_text("slowly written")
    size = len(data) // 10 + 1
    for start in range(0, len(data), size):
        with slow.open("ab") as file:
            file.write(data[start : start + size])
        fed.scan(after=9)
        assert "slow.png" not in fed.images()
    assert fed.scan(after=9).waiting == 1
    fed.scan(after=2)
    assert sorted(fed.images()) == ["slow.png", "whole.png"]


def test_a_file_written_again_with_its_old_time_is_seen_by_its_size(fed):
    path = fed.drop("a.png", 1)
    times = (path.stat().st_atime_ns, path.stat().st_mtime_ns)
    fed.scan()
    path.write_bytes(path.read_bytes() + b"more")
    os.utime(path, ns=times)
    assert fed.scan(after=11).new_shards == []
    assert fed.scan(after=11).new_shards == ["inbox-00000"]


def test_an_image_waits_for_its_text_and_then_is_taken_without(make_fed):
    fed = make_fed(caption_patience_seconds=60)
    fed.drop("late.png", 1, caption=None)
    fed.drop("never.png", 2, caption=None)
    assert fed.settled().waiting == 2
    (fed.inbox / "late.txt").write_text("here it is")
    fed.scan()
    fed.scan(after=11)
    assert [(row.image, row.caption) for row in fed.rows()] == [("late.png", "here it is")]
    fed.scan(after=60)
    assert [(row.image, row.reason) for row in fed.rows()][1:] == [("never.png", "no_caption")]


def test_with_a_marker_a_folder_is_taken_when_the_marker_is_there(make_fed):
    fed = make_fed(complete="marker")
    fed.drop("one/deep/a.png", 1)
    fed.drop("two/b.png", 2)
    assert fed.scan(after=1_000).new_shards == []
    (fed.inbox / "one" / "_SUCCESS").touch()
    fed.scan(after=1)
    assert fed.images() == ["one/deep/a.png"]


def test_few_files_gather_and_many_do_not(make_fed):
    fed = make_fed(gather_seconds=100)
    fed.drop("0.png", 0)
    assert fed.settled().new_shards == []
    assert fed.scan(after=50).waiting == 1
    for number in range(1, 5):
        fed.drop(f"{number}.png", number)
    fed.scan()
    assert fed.scan(after=11).new_shards == ["inbox-00000"]  # as many as a shard holds
    fed.drop("5.png", 5)
    assert fed.settled().new_shards == []
    assert fed.scan(after=100).new_shards == ["inbox-00001"]


def test_changed_renamed_and_deleted_files_are_said_once(fed):
    changed, renamed, deleted = (fed.drop(f"{name}.png", n) for n, name in enumerate(("changed", "renamed", "deleted")))
    fed.drop("stays.png", 9)
    fed.settled()
    assert len(fed.rows()) == 4

    changed.write_bytes(changed.read_bytes() + b" ")
    renamed.rename(fed.inbox / "new-name.png")
    renamed.with_suffix(".txt").rename(fed.inbox / "new-name.txt")
    deleted.unlink()
    deleted.with_suffix(".txt").unlink()
    said = " ".join(fed.scan(after=1).messages)
    assert "changed.png: changed after its rows were taken into inbox-00000" in said
    assert "renamed.png was renamed to new-name.png" in said
    assert "deleted.png: is gone from the inbox, taken into inbox-00000 before: the store keeps a copy." in said
    assert "stays.png" not in said

    again = fed.scan(after=11)
    assert again.new_shards == ["inbox-00001"]
    assert fed.images()[4:] == ["changed.png"]  # its new content alone
    assert fed.scan(after=100).messages == []


def test_without_copies_a_deleted_file_is_said_to_be_missed(make_fed):
    fed = make_fed(keep="reference")
    path = fed.drop("a.png", 1)
    fed.settled()
    path.unlink()
    assert "its pair can no longer be read; put it back" in fed.scan().messages[0]


def test_an_inbox_that_disappears_is_said_once_and_its_files_are_not_taken_for_deleted(fed):
    fed.drop("a.png", 1)
    fed.settled()
    fed.inbox.rename(fed.root / "away")
    gone = fed.scan(after=30)
    assert len(gone.faults) == 1
    assert "there is no such file or folder" in gone.faults[0]
    assert fed.scan(after=30).messages == []
    (fed.root / "away").rename(fed.inbox)
    assert fed.scan(after=30).messages == [f"{fed.inbox}: the inbox can be scanned again."]
    assert fed.scan(after=30).messages == []


def test_the_wall_clock_may_jump(fed):
    for number, year in enumerate((1971, 2099)):
        path = fed.drop(f"{year}.png", number)
        os.utime(path, ((year - 1970) * 31_556_952,) * 2)
    fed.settled()
    assert sorted(fed.images()) == ["1971.png", "2099.png"]


def test_after_the_machine_was_started_again_a_file_rests_anew(fed):
    fed.drop("a.png", 1)
    fed.scan()
    fed.now = 3.0  # the monotonic clock begins again
    assert fed.scan().new_shards == []
    assert fed.scan(after=9).new_shards == []
    assert fed.scan(after=2).new_shards == ["inbox-00000"]


def test_names_in_any_script_with_newlines_and_quotes(fed):
    names = ["日本語.png", "a\nb.png", 'it\'s "quoted".png', "ümläut %20.png", "; drop table files;--.png"]
    for number, name in enumerate(names):
        fed.drop(name, number)
    fed.settled()
    assert sorted(fed.images()) == sorted(names)
    assert {row.reason for row in fed.rows()} == {None}


def test_a_name_that_is_no_text_is_said_once_and_the_others_are_taken(fed):
    fed.drop("good.png", 1)
    bad = os.fsencode(fed.inbox) + b"/\xff\xfe.png"
    with open(bad, "wb") as file:  # noqa: PTH123 - pathlib takes no bytes
        file.write(b"x")
    assert "its name is not UTF-8 text" in fed.scan().faults[0]
    assert fed.scan(after=11).faults == []
    assert fed.images() == ["good.png"]


def test_unknown_files_are_said_once_and_unfinished_ones_are_left_alone(fed):
    for name in ("movie.mp4", "later.png.part", ".hidden.png", "notes.docx"):
        (fed.inbox / name).write_bytes(b"x")
    said = fed.scan().messages
    assert len(said) == 1
    assert "movie.mp4 and 1 more: not a kind that is read" in said[0]
    assert fed.scan(after=11).messages == []
    assert fed.rows() == []


def test_links_that_leave_the_inbox_are_not_followed(fed, tmp_path):
    secret = tmp_path / "secret"
    secret.mkdir()
    fed.drop("../secret/private.png", 1)
    (fed.inbox / "link").symlink_to(secret)
    (fed.inbox / "link.png").symlink_to(secret / "private.png")
    fed.settled()
    assert fed.images() == []


def test_a_table_of_captions_takes_the_images_beside_it(fed):
    fed.drop("batch/a.png", 1, caption=None)
    fed.drop("batch/b.png", 2, caption=None)
    (fed.inbox / "batch" / "captions.json").write_text(
        '[{"image": "a.png", "caption": "one"}, {"image": "b.png", "caption": "two"}]'
    )
    fed.scan()
    fed.drop("batch/c.png", 3, caption=None)  # still arriving
    assert fed.scan(after=11).new_shards == []
    fed.scan(after=11)
    assert [(row.caption, row.reason) for row in fed.rows()] == [("one", None), ("two", None)]
    assert fed.scan(after=11).waiting == 0


def test_a_table_longer_than_a_shard_is_cut_exactly(fed):
    fed.drop("a.png", 1, caption=None)
    rows = [f'{{"image": "a.png", "caption": "{number}"}}' for number in range(10)]
    (fed.inbox / "captions.json").write_text(f"[{', '.join(rows)}]")
    assert fed.settled().new_shards == ["inbox-00000", "inbox-00001"]
    assert [row.caption for row in fed.rows()] == [str(number) for number in range(10)]
    assert fed.scan(after=11).messages == []


def test_a_table_that_cannot_be_read_is_said_once_and_the_rest_is_taken(fed):
    (fed.inbox / "x.csv").write_text("path,text\na.png,hello\n")
    fed.drop("sub/a.png", 1)
    fed.scan()
    scan = fed.scan(after=11)
    assert len(scan.faults) == 1
    assert "x.csv cannot be taken: " in scan.faults[0]
    assert "no column" in scan.faults[0]
    assert fed.images() == ["sub/a.png"]
    assert fed.scan(after=11).messages == []


def test_a_lost_journal_is_filled_from_the_listings(fed):
    for number in range(7):
        fed.drop(f"{number}.png", number)
    fed.settled()
    shutil.rmtree(fed.factory.store.path("inbox"))
    assert fed.settled().new_shards == []
    assert len(fed.rows()) == 7
    fed.drop("new.png", 8)
    assert fed.settled().new_shards == ["inbox-00002"]


def test_two_looks_at_once_do_not_cut_twice(fed):
    fed.drop("a.png", 1)
    fed.scan()
    with FileLock(sharding_lock(fed.factory)):
        assert scan_inbox(fed.factory, now=fed.now + 20).busy
    assert fed.scan(after=20).new_shards == ["inbox-00000"]


def test_a_shard_is_asked_for_until_it_is_ingested(fed):
    for number in range(7):
        fed.drop(f"{number}.png", number)
    fed.settled()
    fed.drop("8.png", 8)
    fed.settled()
    batches = {"inbox-00000": ["inbox-00000", "inbox-00001"], "inbox-00002": ["inbox-00002"]}
    assert unfinished_batches(fed.factory) == batches
    ingest_shard(fed.factory, "inbox-00000")
    assert unfinished_batches(fed.factory) == batches
    ingest_shard(fed.factory, "inbox-00001")
    assert list(unfinished_batches(fed.factory)) == ["inbox-00002"]


def test_an_inbox_in_object_storage(make_fed, object_storage_url):
    storage, root = fsspec.core.url_to_fs(object_storage_url)
    folder = f"{object_storage_url}/new"
    fed = make_fed(folders=[folder])
    local = fed.drop("a.png", 1)
    for name in ("a.png", "a.txt"):
        storage.pipe(f"{root}/new/{name}", (fed.inbox / name).read_bytes())
    fed.settled()
    (row,) = fed.rows()
    assert (row.image, row.path, row.caption) == ("a.png", f"{folder}/a.png", "a caption")
    assert local.exists()
    (pair,) = read_pairs(ingest_shard(fed.factory, "inbox-00000")).to_pylist()
    assert pair["raw_caption"] == "a caption"
    storage.pipe(f"{root}/new/b.png", fed.drop("b.png", 2).read_bytes())
    storage.pipe(f"{root}/new/b.txt", b"another")
    fed.settled()
    assert fed.images() == ["a.png", "b.png"]
    storage.rm(f"{root}/new", recursive=True)
    assert "there is no such file or folder" in fed.scan().faults[0]


def test_a_read_only_inbox_is_read(fed):
    fed.drop("a.png", 1)
    before = {path: path.stat().st_mtime_ns for path in Path(fed.inbox).rglob("*")}
    fed.inbox.chmod(0o555)
    fed.settled()
    fed.inbox.chmod(0o755)
    assert fed.images() == ["a.png"]
    assert {path: path.stat().st_mtime_ns for path in Path(fed.inbox).rglob("*")} == before


def test_a_file_too_large_for_the_look_is_left_to_one_without_a_bound(fed):
    fed.drop("a.png", 1)
    table = fed.inbox / "more" / "captions.jsonl"
    fed.drop("more/b.png", 2, caption=None)
    table.write_text('{"image": "b.png", "caption": "%s"}\n' % ("b" * 500))
    scan_inbox(fed.factory, now=fed.now)
    scan = scan_inbox(fed.factory, now=fed.now + 11, largest=400)
    assert [each.partition(" ")[0] for each in scan.large] == [str(table)]
    assert fed.images() == ["a.png"]
    assert scan_inbox(fed.factory, now=fed.now + 12).large == []
    assert sorted(fed.images()) == ["a.png", "b.png"]
