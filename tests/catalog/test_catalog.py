"""The catalog: always as the files are, whatever happened to it."""

import json
import os
import shutil
import subprocess
import sys

import duckdb
import pytest
from rich.cells import cell_len
from small_factory import ColourBackend, settings_of, source_in

from caploom.catalog.catalog import open_catalog
from caploom.catalog.files import CATALOG_FILE
from caploom.catalog.query import aligned, ask, described_tables
from caploom.catalog.schema import SHOWN
from caploom.config.factory import Factory
from caploom.config.factory_config import parse_config
from caploom.errors import StoreError
from caploom.stages.captions import caption_shard
from caploom.stages.raw_pairs import ingest_shard
from caploom.stages.shards import create_new_shards
from caploom.stages.sheared import shear_recipe
from caploom.stages.training_set import merge_training_set
from caploom.storage.manifest import MANIFEST
from caploom.storage.opening import open_store
from caploom.storage.store import Plan


def factory_in(folder, store):
    settings = settings_of(folder / "source", name="catalogued", store=str(store))
    return Factory.from_config(parse_config(settings, base=folder, source="test"))


def make_catalogued(folder):
    """Two shards, captioned, sheared and merged."""
    source_in(folder / "source", 14)
    factory = factory_in(folder, folder / "store")
    for shard in create_new_shards(factory):
        ingest_shard(factory, shard)
        caption_shard(factory, "colours", shard, ColourBackend)
    for recipe in factory.config.expanded_recipes():
        shear_recipe(factory, recipe)
        merge_training_set(factory, recipe)


@pytest.fixture(scope="module")
def read_only(made_once, tmp_path_factory):
    """The factory for questions that leave it as it is."""
    folder, store = made_once("catalogued", make_catalogued), tmp_path_factory.mktemp("catalogued") / "store"
    shutil.copytree(folder / "store", store)
    return factory_in(folder, store)


@pytest.fixture
def factory(made_once, tmp_path):
    """The same with a store of the test's own, which has no catalog yet."""
    folder = made_once("catalogued", make_catalogued)
    shutil.copytree(folder / "store", tmp_path / "store")
    return factory_in(folder, tmp_path / "store")


def numbers(store, query):
    with open_catalog(store) as catalog:
        return catalog.execute(query).fetchall()


def manifest_of(store, kind):
    return sorted((store.root / kind).rglob(MANIFEST))[0]


def test_tables_and_views_hold_what_the_files_hold(read_only):
    store = read_only.store
    assert numbers(store, "select count(*) from ledger") == [(14,)]
    assert numbers(store, "select count(*), count(distinct shard) from pairs") == [(14, 2)]
    assert numbers(store, "select count(*) from sheared") == [(14,)]
    assert numbers(
        store, "select recipe, source, count(*), sum(weight) from training_rows group by all order by 1, 2"
    ) == [
        ("raw-only", "raw", 14, 14.0),
        ("sheared", "colours", 14, 7.0),
        ("sheared", "raw", 14, 7.0),
    ]
    assert numbers(store, "select label, rows_in, rows_out from manifests where kind = 'captions' order by 1") == [
        ("captions/colours [shard-00000]", 10, 10),
        ("captions/colours [shard-00001]", 4, 4),
    ]
    assert numbers(store, "select count(*) from images") == [(14,)]
    assert numbers(store, "select count(*) from metrics") == [(0,)]
    assert numbers(store, "select count(*) from damaged") == [(0,)]


def test_every_manifest_is_a_row_and_every_input_an_edge(read_only):
    artifacts = [
        artifact
        for kind in (
            "shards",
            "raw_pairs",
            "captions",
            "sheared",
            "sheared_captions",
            "near_duplicates",
            "training_set",
        )
        for artifact in read_only.store.list(kind)
    ]
    with open_catalog(read_only.store) as catalog:
        rows = dict(catalog.execute("select address, configuration::text from manifests").fetchall())
        edges = set(catalog.execute("select address, input_address from inputs").fetchall())
    assert {a.manifest.address: a.manifest.configuration for a in artifacts} == {
        k: json.loads(v) for k, v in rows.items()
    }
    assert edges == {(a.manifest.address, i.address) for a in artifacts for i in a.manifest.inputs}


def test_what_is_made_and_deleted_later_is_seen(factory):
    store = factory.store
    before = numbers(store, "select count(*) from manifests")[0][0]
    store.make(Plan(kind="ablation_report", code_version="1", configuration={"a": 1}), lambda draft: None)
    assert numbers(store, "select count(*) from manifests") == [(before + 1,)]
    manifest_of(store, "captions").unlink()
    assert numbers(store, "select count(*) from manifests") == [(before,)]
    assert numbers(store, "select count(*) from ledger") == [(4,)]  # of shard-00000 nothing is finished any more


def test_an_unchanged_store_costs_no_write(read_only):
    numbers(read_only.store, "select 1")
    written = (read_only.store.root / CATALOG_FILE).stat().st_mtime_ns
    numbers(read_only.store, "select 1")
    assert (read_only.store.root / CATALOG_FILE).stat().st_mtime_ns == written


@pytest.mark.parametrize("damage", ["random", "cut", "empty", "folder's of another", "of another version"])
def test_a_catalog_that_is_of_no_use_is_made_again(factory, tmp_path, damage):
    store, file = factory.store, factory.store.root / CATALOG_FILE
    numbers(store, "select 1")
    if damage == "random":
        file.write_bytes(os.urandom(100_000))
    elif damage == "cut":
        file.write_bytes(file.read_bytes()[:20_000])
    elif damage == "empty":
        file.write_bytes(b"")
    else:
        with duckdb.connect(file) as connection:
            column = "root" if damage.startswith("folder") else "version"
            connection.execute(f"update about set {column} = '0'")
            connection.execute("delete from manifests")
    assert numbers(store, "select count(*) from ledger") == [(14,)]


def test_views_that_another_duckdb_wrote_are_made_again(factory):
    store, file = factory.store, factory.store.root / CATALOG_FILE
    metrics = numbers(store, "from metrics")
    with duckdb.connect(file) as connection:
        connection.execute("update about set duckdb = '1.3.2'")
        connection.execute("create or replace view metrics as select error('parsed differently')")
    assert numbers(store, "from metrics") == metrics
    assert numbers(store, "select duckdb from about") == [(duckdb.__version__,)]


def test_a_catalog_that_somebody_has_open_is_in_nobodys_way(factory):
    store = factory.store
    numbers(store, "select 1")
    script = (
        "import duckdb, sys; c = duckdb.connect(sys.argv[1]);"
        " print(c.execute('select count(*) from ledger').fetchone()[0], flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", script, str(store.root / CATALOG_FILE)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout.readline() == "14\n"  # plain DuckDB sees the views too, and holds the file from now on
        assert numbers(store, "select count(*) from ledger") == [(14,)]
        holder.stdin.close()
        assert holder.wait(timeout=30) == 0


def test_two_commands_at_once_both_answer(factory):
    script = (
        "import sys; from pathlib import Path; from caploom.storage.store import Store\n"
        "from caploom.catalog.catalog import open_catalog\n"
        "with open_catalog(Store(Path(sys.argv[1]))) as c:\n"
        "    print(c.execute('select count(*) from ledger').fetchone()[0])"
    )
    command = [sys.executable, "-c", script, str(factory.store.root)]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert [each.communicate(timeout=60)[0] for each in running] == ["14\n"] * 2
    assert not list(factory.store.root.glob(".catalog.duckdb.*"))


def test_a_copy_that_a_killed_command_left_is_swept(factory):
    left = factory.store.root / ".catalog.duckdb.999999999.abcdef12"
    left.write_bytes(b"half")
    numbers(factory.store, "select 1")
    assert not left.exists()


def test_a_store_with_a_difficult_name_has_its_views_too(tmp_path):
    store = open_store(tmp_path / "it's [a] store*")
    source = tmp_path / "source"
    store.make(Plan(kind="ablation_report", code_version="1", configuration={}), lambda draft: None)
    assert not source.exists()
    assert numbers(store, "select count(*) from ledger") == [(0,)]
    with open_catalog(store) as catalog:
        assert ask(catalog, store, "select kind from manifests").rows == [("ablation_report",)]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda m: {**m, "configuration": {**m["configuration"], "shard": "shard-00007"}}, "edited by hand"),
        (lambda m: {**m, "inputs": []}, "edited by hand"),
        (lambda m: {**m, "address": "captions/else/0/1"}, "edited by hand or moved"),
        (lambda m: {**m, "manifest_version": 99}, "made by a newer Caploom"),
        (lambda m: {**m, "surprise": 1}, "not a manifest of version 1 (surprise"),
        (lambda m: {key: value for key, value in m.items() if key != "started"}, "manifest of version 1 (started"),
        (lambda m: [], "not a manifest"),
    ],
)
def test_a_manifest_that_cannot_be_relied_on_is_named_and_hides_no_other(factory, change, said):
    store = factory.store
    manifest = manifest_of(store, "captions")
    manifest.write_text(json.dumps(change(json.loads(manifest.read_text()))))
    ((path, problem),) = numbers(store, "select path, problem from damaged")
    assert path == str(manifest)
    assert said in problem
    assert numbers(store, "select count(*) from manifests where kind = 'captions'") == [(1,)]
    assert numbers(store, "select count(*) from ledger") == [(4,)]


@pytest.mark.parametrize("text", ["", "{", "\x00\x01", "null"])
def test_a_manifest_that_is_no_json_is_named(factory, text):
    manifest = manifest_of(factory.store, "training_set")
    manifest.write_text(text)
    ((path,),) = numbers(factory.store, "select path from damaged")
    assert path == str(manifest)


@pytest.mark.parametrize(
    "query",
    [
        "select * from read_text('/etc/hostname')",
        "copy (select 1) to '{root}/written.csv'",
        "copy (select 1) to '/tmp/written.csv'",
        "drop table inputs",
        "attach '{root}/other.duckdb'",
        "set threads = 1",
        "select 1; select 2",
        "selec 1",
        "select nothing from manifests",
        "",
    ],
)
def test_a_query_reads_the_store_and_does_nothing_else(read_only, query):
    before = sorted(read_only.store.root.rglob("*"))
    with open_catalog(read_only.store) as catalog:
        before = sorted(read_only.store.root.rglob("*"))
        with pytest.raises(StoreError) as refused:
            ask(catalog, read_only.store, query.format(root=read_only.store.root))
    assert "\n" not in str(refused.value)
    assert sorted(read_only.store.root.rglob("*")) == before


def test_every_column_of_every_table_is_described_as_it_is(read_only):
    with open_catalog(read_only.store) as catalog:
        there = catalog.execute(
            "select table_name, column_name, data_type, comment from duckdb_columns() where database_name = 'catalog'"
            " and not internal"
            " order by table_name, column_index"
        ).fetchall()
        types = {name: catalog.execute(f"describe {name}").fetchall() for name in {row[0] for row in there}}
    described = {(table, column): about for table, column, _, about in described_tables().rows}
    assert described == {(t, c): comment for t, c, _, comment in there if t not in ("about", "seen")}
    for table in SHOWN:
        catalog_types = {"text": "varchar", "timestamptz": "timestamp with time zone", "text[]": "varchar[]"}
        wanted = [(column.name, catalog_types.get(column.type, column.type).upper()) for column in table.columns]
        assert [(name, kind) for name, kind, *_ in types[table.name]] == wanted, table.name


def test_a_caption_cannot_steer_the_terminal(read_only):
    with open_catalog(read_only.store) as catalog:
        answer = ask(catalog, read_only.store, "select 'a' || chr(27) || '[31mred' || chr(10) || 'line' as caption")
    assert "\x1b" not in aligned(answer, limit=10)
    assert len(aligned(answer, limit=10).splitlines()) == 3


def test_cells_that_a_terminal_shows_wider_than_their_characters_line_up(read_only):
    query = "select unnest(['红色的', '🐈🐈', 'a_b*c|d']) as caption, 7 as words"
    with open_catalog(read_only.store) as catalog:
        lines = aligned(ask(catalog, read_only.store, query), limit=10).splitlines()
    assert len({cell_len(line) for line in lines}) == 1
    assert any(line.startswith("a_b*c|d  ") for line in lines)
