"""The store in object storage: a real S3 server on loopback and fsspec's storage in memory, real files in a mirror."""

import json
import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from small_factory import settings_of

from caploom.captioning.ledger import Ledger
from caploom.captioning.retries import request_retry, retries_asked
from caploom.catalog.catalog import open_catalog
from caploom.catalog.query import ask
from caploom.config.factory import Factory
from caploom.config.factory_config import parse_config
from caploom.errors import StoreError
from caploom.images.location import Location, read_location
from caploom.stages.raw_pairs import ingest_shard
from caploom.stages.shards import (
    create_new_shards,
    list_shards,
    source_fingerprint,
    write_shard,
)
from caploom.stages.source_rows import shard_rows
from caploom.storage import object_store
from caploom.storage.bucket import Bucket
from caploom.storage.manifest import MANIFEST
from caploom.storage.object_store import ObjectStore
from caploom.storage.opening import open_store
from caploom.storage.records import CAPTIONS
from caploom.storage.store import Plan
from caploom.storage.tables import table_of, write_table


@pytest.fixture
def own_client():
    """s3fs's client is made anew for this test, and for those after it."""
    import s3fs

    s3fs.S3FileSystem.clear_instance_cache()
    yield
    s3fs.S3FileSystem.clear_instance_cache()


@pytest.fixture
def url(object_storage_url):
    return f"{object_storage_url}/factory"


@pytest.fixture
def httpserver_of():
    """Starts a server that says one thing to everybody; gives its address."""
    servers = []

    def start(status, said, asked=None):
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                if asked is not None:
                    asked.append(self.path)
                self.send_response(status)
                self.end_headers()
                self.wfile.write(json.dumps(said).encode())

            do_POST = do_GET

            def log_message(self, *_):
                pass

        servers.append(ThreadingHTTPServer(("127.0.0.1", 0), Handler))
        threading.Thread(target=servers[-1].serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{servers[-1].server_port}"

    yield start
    for server in servers:
        server.shutdown()


def plan(size=1):
    return Plan(kind="things", name=("a",), code_version="1", configuration={"size": size})


def write(draft, text="hello"):
    (draft.folder / "thing.txt").write_text(text)
    (draft.folder / "below").mkdir()
    (draft.folder / "below" / "other.txt").write_text("other")


def elsewhere(url, tmp_path, name="other"):
    """The same store as another machine has it: with a mirror of its own."""
    return ObjectStore(url, tmp_path / name)


def keys(store):
    return list(store.bucket.list(""))


def test_an_artifact_is_made_once_and_found_on_another_machine(url, tmp_path):
    store = open_store(url)
    assert not store.make(plan(), write).reused
    other = elsewhere(url, tmp_path)
    found = other.make(plan(), lambda draft: pytest.fail("it was made twice"))
    assert found.reused
    assert not (other.root / plan().address / "thing.txt").exists(), "a file was fetched that nobody asked for"
    assert found.file("thing.txt").read_text() == "hello"
    assert (found.folder / "below" / "other.txt").read_text() == "other"
    assert [each.manifest.address for each in other.list("things")] == [plan().address]


def test_the_manifest_is_that_of_a_local_store(url, tmp_path):
    local, far = open_store(tmp_path / "local").make(plan(), write), open_store(url).make(plan(), write)
    told = {"started", "seconds"}
    assert local.manifest.model_dump(exclude=told) == far.manifest.model_dump(exclude=told)


def test_what_is_deleted_in_the_bucket_is_gone(url):
    store = open_store(url)
    store.make(plan(), write)
    for key in keys(store):
        store.bucket.delete(key)
    assert store.list("things") == []
    assert store.find(plan()) is None
    assert not store.make(plan(), write).reused


def test_folders_are_those_of_the_bucket_and_of_this_machine(url, tmp_path):
    store = open_store(url)
    assert store.folders("things") == []
    store.make(plan(), write)
    elsewhere(url, tmp_path).make(replace(plan(), name=("b",)), write)
    (store.root / "things" / "c").mkdir()
    (store.root / "things" / ".hidden").mkdir()
    assert store.folders("things") == ["a", "b", "c"]
    assert store.folders(f"things/{plan().name[0]}") == [plan().fingerprint]


def test_who_may_miss_the_latest_lists_a_tenth_of_the_time_and_sees_its_own(s3, tmp_path):
    store = open_store(f"s3://{s3[1]}/factory")

    def listings():
        return sum("list-type" in query for _, _, query in s3[0].seen)

    store.refresh_throttled("things")
    before = listings()
    store.refresh_throttled("things")
    assert listings() == before
    elsewhere(store.bucket.url, tmp_path).make(plan(2), write)
    store.make(plan(1), write)
    store.refresh_throttled("things")
    assert store.path(plan(1).address).is_dir()
    deadline = time.monotonic() + 30
    while not store.path(plan(2).address).is_dir() and time.monotonic() < deadline:
        time.sleep(0.05)
        store.refresh_throttled("things")
    assert store.path(plan(2).address).is_dir()


def test_a_mirror_may_be_deleted_at_any_time(url):
    store = open_store(url)
    store.make(plan(), write)
    shutil.rmtree(store.root)
    again = open_store(url).find(plan())
    assert again.file("thing.txt").read_text() == "hello"


def test_a_killed_upload_counts_for_nothing_and_the_next_one_is_whole(url, tmp_path, monkeypatch):
    store = open_store(url)

    def killed(key, data):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(store.bucket, "create", killed)
        with pytest.raises(KeyboardInterrupt):
            store.make(plan(), write)
    assert len(keys(store)) == 2
    assert store.find(plan()) is None and store.list("things") == []
    assert elsewhere(url, tmp_path).make(plan(), write).file("thing.txt").read_text() == "hello"


def test_of_two_writers_the_first_stays_and_its_files_are_whole(url, tmp_path):
    one, two = open_store(url), elsewhere(url, tmp_path)

    def slow(draft):
        write(draft, "mine")
        assert not one.make(plan(), lambda inner: write(inner, "theirs")).reused

    found = two.make(plan(), slow)
    assert found.file("thing.txt").read_text() == "theirs"
    assert elsewhere(url, tmp_path, "third").find(plan()).file("thing.txt").read_text() == "theirs"


def test_a_writer_that_lost_between_its_look_and_its_manifest_leaves_the_first(s3, tmp_path, monkeypatch):
    url = f"s3://{s3[1]}/factory"
    one, two = open_store(url), elsewhere(url, tmp_path)
    create = two.bucket.create

    def later(key, data):
        one.make(plan(), lambda draft: write(draft, "theirs"))
        return create(key, data)

    monkeypatch.setattr(two.bucket, "create", later)
    assert two.make(plan(), lambda draft: write(draft, "mine")).file("thing.txt").read_text() == "theirs"
    assert elsewhere(url, tmp_path, "third").find(plan()).file("thing.txt").read_text() == "theirs"


def test_a_damaged_object_is_named_and_never_kept(url, tmp_path):
    store = open_store(url)
    store.make(plan(), write)
    (key,) = (key for key in keys(store) if key.endswith("thing.txt"))
    store.bucket.write(key, b"hellO")
    other = elsewhere(url, tmp_path).find(plan())
    for _ in range(2):
        with pytest.raises(StoreError, match=r"thing\.txt: its SHA-256 is not the one in its manifest"):
            other.file("thing.txt")
    store.bucket.delete(key)
    with pytest.raises(StoreError, match=r"thing\.txt: the manifest names this file but it is gone"):
        other.file("thing.txt")


@pytest.mark.slow
def test_more_than_a_page_of_artifacts_is_listed_and_fetched_once(s3, tmp_path):
    server, bucket = s3
    store = open_store(f"s3://{bucket}/factory")
    text = store.make(plan(), write).manifest
    many = {f"things/a/{number:016x}": number for number in range(1100)}

    def put(address):
        manifest = text.model_copy(update={"address": address})
        store.bucket.write(f"{address}/{MANIFEST}", manifest.model_dump_json().encode())

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(put, many))
    other = elsewhere(store.bucket.url, tmp_path)
    server.seen.clear()
    assert len(other.list("things")) == 1101
    pages = [query for _, path, query in server.seen if "list-type" in query]
    assert len(pages) == 2 and "continuation-token" in pages[1]
    server.seen.clear()
    assert len(other.list("things")) == 1101
    assert len(server.seen) == 2, "manifests that were there have been fetched again"


@pytest.mark.slow
def test_a_storage_that_fails_now_and_then_loses_nothing(s3, tmp_path):
    server, bucket = s3
    store = open_store(f"s3://{bucket}/factory")
    count = iter(range(10**6))
    server.code = "SlowDown"
    server.spoil = lambda method, path: (500, 503)[next(count) % 2] if next(count) % 3 == 0 else None
    store.make(plan(), write)
    assert elsewhere(store.bucket.url, tmp_path).find(plan()).file("thing.txt").read_text() == "hello"


@pytest.mark.slow
def test_a_storage_that_stays_down_ends_in_one_sentence_and_nothing_counts(s3, own_client, monkeypatch):
    server, bucket = s3
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    store = open_store(f"s3://{bucket}/factory")
    server.spoil = lambda method, path: 500 if method == "PUT" else None
    with pytest.raises(StoreError, match=r"s3://.*: the storage keeps failing .*; run again"):
        store.make(plan(), write)
    server.spoil = lambda method, path: None
    assert store.find(plan()) is None
    assert not store.make(plan(), write).reused


@pytest.mark.parametrize("code", ["AccessDenied", "ExpiredToken"])
def test_denied_writes_and_expired_credentials_are_one_sentence(s3, code):
    server, bucket = s3
    store = open_store(f"s3://{bucket}/factory")
    server.code, server.spoil = code, lambda method, path: 403 if method == "PUT" else None
    with pytest.raises(StoreError, match=r"s3://.*the storage denies access .*credentials in the environment"):
        store.make(plan(), write)
    server.spoil = lambda method, path: None
    assert keys(store) == []


@pytest.mark.parametrize("status", [401, 403])
def test_google_s_denials_are_one_sentence_too(gs, monkeypatch, httpserver_of, status, capfd):
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", httpserver_of(status, {"error": {"message": "No access for you."}}))
    with pytest.raises(StoreError, match=r"gs://.* the storage denies access .*check that the credentials") as raised:
        open_store(f"gs://{gs}/factory")
    assert "\n" not in str(raised.value)
    assert "Traceback" not in capfd.readouterr().err


def test_google_s_storage_is_told_to_create_only_what_is_not_there(gs, monkeypatch, httpserver_of):
    """What the tests' server for it does not know: the condition, and the answer when it does not hold."""
    asked = []
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", httpserver_of(412, {"error": {"message": "No."}}, asked))
    bucket = Bucket(f"gs://{gs}/factory")
    monkeypatch.setattr(bucket, "read", lambda key: b"another's")
    assert bucket.create("manifest.json", b"ours") is False
    assert asked and all("ifGenerationMatch=0" in path for path in asked)


def test_a_bucket_that_is_not_there_is_named(s3):
    with pytest.raises(StoreError, match="there is no bucket nowhere-at-all; create it, or correct the address"):
        open_store("s3://nowhere-at-all/factory")


def caption(number):
    return {
        "image_id": f"{number:032x}",
        "captioner": "c",
        "fingerprint": "f" * 16,
        "text": f"Caption {number}.",
        "finish_reason": "stop",
        "attempt": 1,
        "tokens": 3,
        "seconds": 0.1,
        "pair_id": None,
    }


def test_the_ledgers_parts_are_known_on_every_machine_until_they_are_swept(url, tmp_path):
    here, there = (Ledger(store, "c", "f" * 16) for store in (open_store(url), elsewhere(url, tmp_path)))
    ids = [caption(number)["image_id"] for number in range(3)]
    here.append("shard-00000", [caption(0)])
    there.append("shard-00000", [caption(1), caption(0)])
    for ledger in (here, there):
        assert ledger.missing(ids) == [ids[2]]
        assert sorted(ledger.find(ids)["image_id"].to_pylist()) == ids[:2]
    here.sweep("shard-00000")
    assert there.missing(ids) == ids


def test_a_caption_that_another_machine_finished_meanwhile_is_found_when_tables_are_written(s3, tmp_path):
    def slow_listing(method, path):
        if path.strip("/") == s3[1]:
            time.sleep(1)  # so that it is not asked for again within nine seconds

    s3[0].spoil = slow_listing
    url, ids = f"s3://{s3[1]}/factory", [caption(0)["image_id"]]
    far = elsewhere(url, tmp_path)
    here, there = Ledger(open_store(url), "c", "f" * 16), Ledger(far, "c", "f" * 16)
    there.append("shard-00000", [caption(0)])
    assert here.missing(ids) == []
    finished = Plan(kind="captions", name=("c", "f" * 16, "shard-00000"), code_version="1", configuration={})
    far.make(finished, lambda draft: write_table(table_of([caption(0)], CAPTIONS), draft.folder / "captions.parquet"))
    there.sweep("shard-00000")
    assert here.missing(ids) == ids, "it was listed again: the test shows nothing"
    assert here.find(ids)["text"].to_pylist() == ["Caption 0."]


def test_retries_are_asked_for_on_every_machine(url, tmp_path):
    here, there = open_store(url), elsewhere(url, tmp_path)
    request_retry(here, "c", "f" * 16, "shard-00000")
    request_retry(there, "c", "f" * 16, "shard-00000")
    assert retries_asked(here, "c", "f" * 16, "shard-00000") == 2


def test_an_image_of_a_pack_in_the_bucket_is_read_by_its_range(url):
    store = open_store(url)
    place = store.url_of(plan().address, "images.pack")
    store.make(plan(), lambda draft: (draft.folder / "images.pack").write_bytes(b"0123456789"))
    assert read_location(str(Location(place, offset=3, length=4))) == b"3456"


@pytest.fixture
def far_factory(write_source, url):
    """A factory of two shards whose store is at the URL."""
    source = write_source(5)
    settings = settings_of(source, store=url, shard_size=3)
    factory = Factory.from_config(parse_config(settings, base=source.parent, source="far.yaml"))
    for shard in create_new_shards(factory):
        ingest_shard(factory, shard)
    return factory


def test_of_two_machines_that_cut_shards_at_once_one_is_told_to_run_again(
    far_factory, write_source, tmp_path, monkeypatch
):
    if far_factory.config.store.startswith("gs:"):
        pytest.skip("the tests' server for Google's storage knows no conditional writes")
    rows = [row for listing in list_shards(far_factory) for row in shard_rows(listing)]
    there = Factory(far_factory.config, elsewhere(far_factory.config.store, tmp_path))
    assert write_shard(far_factory, "shard-00002", rows[:2], {}) == "shard-00002"
    assert write_shard(there, "shard-00002", rows[:2], {}) == "shard-00002"  # the same rows, cut twice
    with pytest.raises(StoreError, match=r"shard-00002: another machine cuts shards .* run again when it is done"):
        write_shard(there, "shard-00002", rows[1:3], {})
    assert len(list_shards(there)) == 3
    # A process that was killed between its claim and its listing blocks the name for a minute.
    there.store.bucket.create(f"shards/{source_fingerprint(there)}/shard-00003/claim", b"f" * 16)
    with pytest.raises(StoreError, match="another machine cuts shards"):
        write_shard(far_factory, "shard-00003", rows[:1], {})
    monkeypatch.setattr(object_store, "_CLAIM_COUNTS", 0)
    write_shard(far_factory, "shard-00003", rows[:1], {})
    assert [each.manifest.configuration["shard"] for each in list_shards(there)][-1] == "shard-00003"


def test_duckdb_reads_the_tables_where_they_lie(far_factory, tmp_path):
    other = elsewhere(far_factory.config.store, tmp_path)
    question = "select shard, count(*), min(raw_caption) from pairs group by shard order by shard"
    told = [("shard-00000", 3, "photo 0"), ("shard-00001", 2, "photo 3")]
    for _ in range(2):  # the catalog is written, and then found
        with open_catalog(other) as catalog:
            assert ask(catalog, other, question).rows == told
            assert ask(catalog, other, "select count(distinct raw_caption) from pairs").rows == [(5,)]
            assert ask(catalog, other, "select * from failures").rows == []
            with pytest.raises(StoreError, match="DuckDB cannot answer"):
                ask(catalog, other, f"select * from read_csv('{tmp_path}/source/captions.json')")
    assert not list(other.root.rglob("*.parquet")), "a table was fetched whole"
    shutil.rmtree(other.root)
    with open_catalog(other) as catalog:
        assert ask(catalog, other, question).rows == told


def test_a_query_over_a_store_that_changes_sees_what_is_there_now(far_factory, tmp_path, write_source):
    other = elsewhere(far_factory.config.store, tmp_path)
    question = "select count(*) from pairs"
    with open_catalog(other) as catalog:
        assert ask(catalog, other, question).rows == [(5,)]
    write_source(7)
    for shard in create_new_shards(far_factory):
        ingest_shard(far_factory, shard)
    with open_catalog(other) as catalog:
        assert ask(catalog, other, question).rows == [(7,)]
    gone = far_factory.store.list("raw_pairs")[0].manifest.address
    far_factory.store.bucket.delete(f"{gone}/manifest.json")
    with open_catalog(other) as catalog:
        assert ask(catalog, other, question).rows[0][0] < 7


def test_a_table_that_is_damaged_in_the_bucket_is_named(far_factory, tmp_path):
    store = far_factory.store
    (pairs, *_) = [key for key in store.bucket.list("raw_pairs") if key.endswith("/pairs.parquet")]
    store.bucket.write(pairs, b"no table at all" * 20)
    other = elsewhere(far_factory.config.store, tmp_path)
    with open_catalog(other) as catalog:
        assert ask(catalog, other, "select count(*) from pairs").rows[0][0] in (2, 3)
        ((problem,),) = ask(catalog, other, "select distinct problem from damaged").rows
    assert "it cannot be read as a table" in problem


def test_a_large_file_goes_up_in_parts_and_comes_back_whole(s3, tmp_path):
    server, bucket = s3
    store = open_store(f"s3://{bucket}/factory")
    data = bytes(range(256)) * 4096 * 101  # 106 MB: twice what s3fs sends at once

    def write_large(draft):
        (draft.folder / "weights.bin").write_bytes(data)

    store.make(plan(), write_large)
    assert [query for method, path, query in server.seen if method == "PUT" and "partNumber" in query]
    assert elsewhere(f"s3://{bucket}/factory", tmp_path).read(plan().address).file("weights.bin").read_bytes() == data


def test_a_storage_that_does_not_answer_for_a_while_loses_nothing(s3, own_client, tmp_path, monkeypatch):
    import fsspec

    server, bucket = s3
    patient = {"config_kwargs": {"read_timeout": 0.5, "retries": {"max_attempts": 1}}}
    monkeypatch.setitem(fsspec.config.conf, "s3", patient)
    silent = iter(range(2))
    server.spoil = lambda method, path: 0 if method == "PUT" and next(silent, None) is not None else None
    store = open_store(f"s3://{bucket}/factory")
    assert store.make(plan(), write).file("thing.txt").read_text() == "hello"
    assert next(silent, None) is None, "no answer was held back"
    assert elsewhere(f"s3://{bucket}/factory", tmp_path).read(plan().address).file("thing.txt").read_text() == "hello"
