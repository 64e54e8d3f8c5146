"""Two CPU workers stand for two GPUs."""

import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import psutil
import pytest
from pooled_colours import NO_MODEL, load_colours
from small_factory import captioner_of, write_pictures

from caploom.captioning.backend import ImageRef, load_backend
from caploom.captioning.workers import WorkerPool
from caploom.demo.scenes import compose, render
from caploom.errors import CaptionerError
from caploom.storage.records import image_identity
from caploom.storage.store import Store

LLAVA = {"model": "demo:tiny-llava", "prompt": "Describe <image> in English:", "batch_size": 4}


def scenes(folder, count):
    refs = []
    for number in range(count):
        path = folder / f"{number}.png"
        render(compose(0, "evaluation", number)).save(path)
        refs.append(ImageRef(image_identity(path.read_bytes()), str(path), path.name))
    return refs


def results(backend, refs):
    captioned, failed = {}, {}
    for chunk in backend.caption(refs):
        for item in chunk.captioned:
            assert item.ref not in captioned
            captioned[item.ref] = item.generation
        failed |= {item.ref: item.reason for item in chunk.failed}
    return captioned, failed


COLOURS = captioner_of({"model": "colours", "prompt": "What is this?", "batch_size": 4})


@pytest.fixture(scope="module")
def colours():
    pool = WorkerPool(COLOURS, ["cpu", "cpu"], load_colours)
    yield pool
    pool.close()


@pytest.fixture(scope="module")
def llavas(tmp_path_factory):
    settings = captioner_of({**LLAVA, "device": ["cpu", "cpu"]})
    pool = load_backend(settings, Store(tmp_path_factory.mktemp("store")))
    assert isinstance(pool, WorkerPool)
    yield pool
    pool.close()


def assert_two_workers_say_what_one_process_says(pool, alone, refs):
    Path(refs[5].path).write_bytes(b"")
    before = multiprocessing.active_children()
    assert results(pool, refs) == results(alone, refs)
    captioned, failed = results(pool, refs[:7])  # a second shard, with the same workers
    assert (len(captioned), list(failed.values())) == (6, ["empty_image"])
    assert {worker.process for worker in pool._workers} <= set(multiprocessing.active_children()) == set(before)
    rows = pool.canary(refs[6:])
    assert rows
    assert all(row.equal for row in rows)
    assert set(pool.facts["devices"]) == {"0:cpu", "1:cpu"}


def test_two_workers_say_what_one_process_says(colours, tmp_path):
    alone = load_colours(COLOURS, "cpu")
    assert_two_workers_say_what_one_process_says(colours, alone, write_pictures(tmp_path, 30))


@pytest.mark.slow
def test_so_they_do_with_a_model_of_transformers(llavas, tmp_path):
    alone = load_backend(captioner_of({**LLAVA, "device": "cpu"}), Store(tmp_path))
    assert_two_workers_say_what_one_process_says(llavas, alone, scenes(tmp_path, 30))


def test_both_workers_take_part(colours, tmp_path):
    results(colours, write_pictures(tmp_path, 40))
    took_part = {int(file.read_text()) for file in tmp_path.glob("*.process")}
    assert took_part == {worker.process.pid for worker in colours._workers}


def test_a_worker_that_is_killed_is_said_and_the_pool_can_go_on(colours, tmp_path):
    refs = write_pictures(tmp_path, 24)
    victim = colours._workers[1].process.pid
    os.kill(victim, signal.SIGSTOP)  # else it might be done before it is killed
    chunks = colours.caption(refs)
    next(chunks)
    os.kill(victim, signal.SIGKILL)
    with pytest.raises(CaptionerError, match=r"the worker 1:cpu died \(exit code -9"):
        list(chunks)
    assert len(results(colours, refs[:6])[0]) == 6


def test_a_model_that_does_not_load_is_the_same_sentence_as_in_one_process():
    before = multiprocessing.active_children()
    settings = captioner_of({"model": NO_MODEL, "prompt": "What is this?"})
    with pytest.raises(CaptionerError, match=r"^no-model: there is no such model\.$"):
        WorkerPool(settings, ["cpu", "cpu"], load_colours)
    assert set(multiprocessing.active_children()) <= set(before)


@pytest.mark.slow
def test_so_it_is_with_a_folder_that_is_not_there(tmp_path):
    settings = captioner_of({**LLAVA, "model": str(tmp_path / "none"), "device": ["cpu", "cpu"]})
    with pytest.raises(CaptionerError, match="there is no such model folder"):
        load_backend(settings, Store(tmp_path))


@pytest.mark.slow
def test_workers_whose_run_was_killed_end_by_themselves(tmp_path):
    script = tmp_path / "run.py"
    script.write_text(
        textwrap.dedent(
            f"""
            import sys
            sys.path.insert(0, {str(Path(__file__).parents[1])!r})
            from pathlib import Path
            from small_factory import captioner_of
            from caploom.captioning.backend import load_backend
            from caploom.storage.store import Store

            if __name__ == "__main__":
                settings = captioner_of({{**{LLAVA!r}, "device": ["cpu", "cpu"]}})
                pool = load_backend(settings, Store(Path({str(tmp_path)!r})))
                print(*(worker.process.pid for worker in pool._workers), flush=True)
                sys.stdin.read()
            """
        )
    )
    process = subprocess.Popen([sys.executable, str(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    workers = [psutil.Process(int(pid)) for pid in process.stdout.readline().split()]
    assert len(workers) == 2
    process.kill()
    process.wait()
    _, alive = psutil.wait_procs(workers, timeout=20)
    assert not alive
