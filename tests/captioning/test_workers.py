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
from small_factory import captioner_of

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


@pytest.fixture(scope="module")
def pool(tmp_path_factory):
    settings = captioner_of({**LLAVA, "device": ["cpu", "cpu"]})
    pool = load_backend(settings, Store(tmp_path_factory.mktemp("store")))
    assert isinstance(pool, WorkerPool)
    yield pool
    pool.close()


def test_two_workers_say_what_one_process_says(pool, tmp_path):
    refs = scenes(tmp_path, 30)
    (tmp_path / "5.png").write_bytes(b"")
    alone = load_backend(captioner_of({**LLAVA, "device": "cpu"}), Store(tmp_path))
    assert results(pool, refs) == results(alone, refs)
    captioned, failed = results(pool, refs[:7])  # a second shard, with the same workers
    assert (len(captioned), list(failed.values())) == (6, ["empty_image"])
    assert len(multiprocessing.active_children()) == 2
    assert all(row.equal for row in pool.canary(refs))
    assert set(pool.facts["devices"]) == {"0:cpu", "1:cpu"}


def test_both_workers_take_part(pool, tmp_path):
    refs = scenes(tmp_path, 40)
    before = [worker.process for worker in pool._workers]
    cpu = [psutil.Process(process.pid).cpu_times().user for process in before]
    results(pool, refs)
    assert all(psutil.Process(process.pid).cpu_times().user > start for process, start in zip(before, cpu, strict=True))


@pytest.mark.slow
def test_a_worker_that_is_killed_is_said_and_the_pool_can_go_on(pool, tmp_path):
    refs = scenes(tmp_path, 24)
    chunks = pool.caption(refs)
    next(chunks)
    os.kill(pool._workers[1].process.pid, signal.SIGKILL)
    with pytest.raises(CaptionerError, match=r"the worker 1:cpu died \(exit code -9"):
        list(chunks)
    assert len(results(pool, refs[:6])[0]) == 6


def test_a_model_that_does_not_load_is_the_same_sentence_as_in_one_process(tmp_path):
    settings = captioner_of({**LLAVA, "model": str(tmp_path / "none"), "device": ["cpu", "cpu"]})
    with pytest.raises(CaptionerError, match="there is no such model folder"):
        load_backend(settings, Store(tmp_path))
    assert not [child for child in multiprocessing.active_children() if child.name.startswith(("0:", "1:"))][2:]


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
