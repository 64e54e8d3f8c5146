"""What it costs to know where a factory stands: `status`, `results` and one plan of `retrieval_metrics`.

The store is a finished one, so nothing is to be made, and a question is answered from manifests alone.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.child import Done, Job
from caploom.config.factory import Factory
from caploom.questions.results.results import finished_arms
from caploom.questions.status.factory_status import factory_status
from caploom.stages.graph import Graph
from caploom.stages.stage import Ref
from caploom.storage.manifest import MANIFEST
from caploom.storage.object_store import object_key
from caploom.storage.store import Store

DELAY = 0.02  # seconds that each request takes longer
_BUCKET = "plans"


def _status(factory: Factory) -> bool:
    return factory_status(factory).is_current


def _results(factory: Factory) -> bool:
    done, waiting = finished_arms(factory)
    return bool(done) and not waiting


def _plan(factory: Factory) -> bool:
    recipe = factory.config.expanded_recipes()[0]
    return factory.store.find(Graph(factory).plan(Ref("retrieval_metrics", (recipe.name,)))) is not None


QUESTIONS: dict[str, Callable[[Factory], bool]] = {"status": _status, "results": _results, "plan": _plan}
"""Each says whether it finds everything made."""


def on_disk(job: Job) -> Done:
    """In a local folder: seconds, and how often manifests are read and folders listed."""
    config = _folder(job) / "factory.yaml"
    figures: dict[str, float] = {}
    accesses = _Accesses()
    sys.addaudithook(accesses)
    with job.measured():
        for name, question in QUESTIONS.items():
            accesses.clear()
            figures |= {f"{name}_{figure}": value for figure, value in _asked(question, config).items()}
            figures |= {f"{name}_{figure}": value for figure, value in accesses.figures().items()}
    return Done(len(QUESTIONS), figures)


def on_s3(job: Job) -> Done:
    """In a bucket, each question with an empty mirror (cold) and again with what that left there (warm)."""
    figures: dict[str, float] = {}
    with (
        tempfile.TemporaryDirectory(dir=job.folder) as mirrors,
        _served(_folder(job)) as (server, config),
        job.measured(),
    ):
        for name, question in QUESTIONS.items():
            os.environ["CAPLOOM_MIRROR"] = str(Path(mirrors, name))
            for mirror in ("cold", "warm"):
                before = server.requests(DELAY)
                asked = _asked(question, config)
                asked["requests"] = server.requests(DELAY) - before
                figures |= {f"{name}_{mirror}_{figure}": value for figure, value in asked.items()}
    return Done(2 * len(QUESTIONS), figures)


def _asked(question: Callable[[Factory], bool], config: Path) -> dict[str, float]:
    began = time.perf_counter()
    complete = question(Factory.from_yaml(config))
    return {"s": time.perf_counter() - began, "complete": float(complete)}


class _Accesses:
    """Counts, as an audit hook of Python, which manifests this process opens and which folders it lists."""

    def __init__(self) -> None:
        self._manifests: Counter[str] = Counter()
        self._listed = 0

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open" and str(arguments[0]).endswith(MANIFEST):
            self._manifests[str(arguments[0])] += 1
        elif event in ("os.scandir", "os.listdir"):
            self._listed += 1

    def clear(self) -> None:
        """Begin to count anew."""
        self._manifests.clear()
        self._listed = 0

    def figures(self) -> dict[str, float]:
        """How many reads, of how many manifests, and how many listings of a folder."""
        return {
            "manifest_reads": self._manifests.total(),
            "manifests": len(self._manifests),
            "folders_listed": self._listed,
        }


class _Server:
    """The process of an S3 server."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        assert process.stdin is not None and process.stdout is not None
        self._input, self._output = process.stdin, process.stdout
        self.endpoint = self._output.readline().strip()

    def requests(self, delay: float) -> int:
        """How many requests there were; each later one takes `delay` seconds longer."""
        print(delay, file=self._input, flush=True)
        return int(self._output.readline())


@contextmanager
def _served(folder: Path) -> Iterator[tuple[_Server, Path]]:
    """An S3 server that holds a copy of a folder's store, and the YAML of a factory over that."""
    command = [sys.executable, "-m", "benchmarks.scale.server"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        try:
            server = _Server(process)
            keys = {"AWS_ACCESS_KEY_ID": "any", "AWS_SECRET_ACCESS_KEY": "any", "AWS_DEFAULT_REGION": "us-east-1"}
            os.environ |= {**keys, "AWS_ENDPOINT_URL": server.endpoint}
            _upload(Store(folder / "store"))
            settings = json.loads((folder / "factory.yaml").read_text(encoding="utf-8"))
            config = folder / "factory-s3.yaml"
            config.write_text(json.dumps({**settings, "store": f"s3://{_BUCKET}"}), encoding="utf-8")
            yield server, config
        finally:
            process.kill()


def _upload(store: Store) -> None:
    import s3fs

    files = s3fs.S3FileSystem()
    files.mkdir(_BUCKET)
    objects = dict(_objects(store))
    files.put([str(path) for path in objects.values()], [f"{_BUCKET}/{key}" for key in objects])


def _objects(store: Store) -> Iterator[tuple[str, Path]]:
    """The files of a store by the keys that they have in a bucket."""
    for artifact in store.list():
        address = artifact.manifest.address
        yield f"{address}/{MANIFEST}", artifact.manifest_path
        for name in artifact.manifest.files:
            yield object_key(address, name, artifact.manifest), artifact.file(name)


def _folder(job: Job) -> Path:
    return job.folder / f"plans-{job.options['shards']}"
