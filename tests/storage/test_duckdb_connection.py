"""Connections of the process's one database in memory do not get in each other's way."""

import multiprocessing
from concurrent.futures import ThreadPoolExecutor

import duckdb
import pyarrow as pa
import pytest

from caploom.storage.duckdb_connection import in_memory


def total(number):
    with in_memory() as connection:
        connection.register("asked", pa.table({"value": list(range(number + 1))}))
        return connection.execute("select sum(value) from asked").fetchone()[0]


def test_a_connection_sees_neither_what_another_registered_nor_its_tables():
    with in_memory() as one, in_memory() as other:
        one.register("asked", pa.table({"value": [1]}))
        one.execute("create temp table mine as select * from asked")
        for name in ("asked", "mine"):
            with pytest.raises(duckdb.CatalogException):
                other.execute(f"select * from {name}")


def test_threads_ask_at_once():
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(total, range(40))) == [number * (number + 1) // 2 for number in range(40)]


def test_an_error_leaves_the_database_of_use():
    with pytest.raises(duckdb.Error), in_memory() as connection:
        connection.execute("select * from read_parquet('/nowhere/at-all.parquet')")
    assert total(3) == 6


def test_a_fork_asks_a_database_of_its_own():
    assert total(3) == 6
    context = multiprocessing.get_context("fork")
    answers = context.SimpleQueue()
    child = context.Process(target=lambda: answers.put(total(4)), daemon=True)
    child.start()
    child.join(60)
    assert child.exitcode == 0
    assert answers.get() == 10
