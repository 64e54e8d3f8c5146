import json

import pytest

from caploom.errors import StoreError
from caploom.stages.graph import Graph
from caploom.stages.shards import create_new_shards, shard_names
from caploom.stages.source_rows import shard_rows
from caploom.stages.stage import Ref


def rows_of(factory):
    return [row for name in shard_names(factory) for row in shard_rows(Graph(factory).require(Ref("shards", (name,))))]


def rewrite(source, change):
    path = source / "captions.json"
    path.write_text(json.dumps(change(json.loads(path.read_text()))))


def test_every_row_lands_in_one_shard_of_the_set_size(write_source, make_factory):
    factory = make_factory(write_source(23), shard_size=10)
    assert create_new_shards(factory) == ["shard-00000", "shard-00001", "shard-00002"]
    assert [row.row for row in rows_of(factory)] == list(range(1, 24))
    assert len(list(shard_rows(Graph(factory).require(Ref("shards", ("shard-00002",)))))) == 3


def test_an_unchanged_source_makes_no_shard(write_source, make_factory):
    factory = make_factory(write_source(5))
    create_new_shards(factory)
    assert create_new_shards(factory) == []


def test_new_rows_make_new_shards_wherever_they_stand(write_source, make_factory):
    source = write_source(5)
    factory = make_factory(source)
    create_new_shards(factory)
    first, last = ({"image": "new.png", "caption": caption} for caption in ("first", "x"))
    rewrite(source, lambda rows: [first, *rows, last])
    assert create_new_shards(factory) == ["shard-00001"]
    assert [row.caption for row in shard_rows(Graph(factory).require(Ref("shards", ("shard-00001",))))] == [
        "first",
        "x",
    ]


def test_a_row_given_twice_is_there_twice(write_source, make_factory):
    source = write_source(3)
    factory = make_factory(source)
    rewrite(source, lambda rows: [*rows, rows[0]])
    create_new_shards(factory)
    assert len(rows_of(factory)) == 4
    rewrite(source, lambda rows: [*rows, rows[0]])
    create_new_shards(factory)
    assert len(rows_of(factory)) == 5


def test_another_source_has_shards_of_its_own(write_source, make_factory):
    one = make_factory(write_source(3, name="one"))
    create_new_shards(one)
    other_source = write_source(4, name="other")
    other = make_factory(other_source)
    assert shard_names(other) == []
    create_new_shards(other)
    assert (len(rows_of(one)), len(rows_of(other))) == (3, 4)


def test_an_unknown_shard_is_said(write_source, make_factory):
    with pytest.raises(StoreError, match='no shard "shard-00009"'):
        Graph(make_factory(write_source(1))).require(Ref("shards", ("shard-00009",)))
