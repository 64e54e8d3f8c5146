"""What many tests need: pictures with captions, and factories over them."""

import os
import socket
import subprocess
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import yaml
from asked_factory import copied, make_asked, make_captioned
from hypothesis import settings as hypothesis_settings
from made_once import MadeOnce, made_once_of
from object_storage import S3, serve
from small_factory import settings_of, source_in
from whole_factory import make_whole, moved, settings_in

from caploom.config.factory import Factory
from caploom.config.factory_config import load_config

# What lands or not must not depend on luck; at a desk the examples are drawn again each time.
hypothesis_settings.register_profile("ci", derandomize=True)
if os.environ.get("CI"):
    hypothesis_settings.load_profile("ci")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """The order in which `--dist loadfile` hands the files out."""
    from scheduling import FilesLongestFirst

    return FilesLongestFirst(config, log) if config.getvalue("dist") == "loadfile" else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if "PYTEST_XDIST_WORKER" in os.environ:
        from scheduling import longest_first

        items.sort(key=longest_first)


@pytest.fixture
def write_source(tmp_path: Path) -> Callable[..., Path]:
    """Writes `count` pictures and their captions.json; `extra` rows are appended as they are."""

    def write(count: int, extra: Sequence[Any] = (), name: str = "source") -> Path:
        return source_in(tmp_path / name, count, extra)

    return write


@pytest.fixture
def write_config(tmp_path: Path) -> Callable[[dict[str, Any]], Path]:
    def write(settings: dict[str, Any]) -> Path:
        path = tmp_path / "factory.yaml"
        path.write_text(yaml.safe_dump(settings, sort_keys=False), encoding="utf-8")
        return path

    return write


@pytest.fixture
def make_factory(write_config: Callable[[dict[str, Any]], Path]) -> Callable[..., Factory]:
    def make(source: Path, **changes: Any) -> Factory:
        return Factory.from_config(load_config(write_config(settings_of(source, **changes))))

    return make


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of one megabyte."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], capture_output=True)
    if mounted.returncode != 0:
        pytest.skip("only root may mount the small file system that this test fills")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3]:
    """An S3 server on loopback."""
    pytest.importorskip("moto")
    started, stop = serve()
    yield started
    stop()


@pytest.fixture
def s3(s3_server: S3, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[tuple[S3, str]]:
    """A fresh bucket, the credentials in the environment; gives the server and the bucket's name.

    s3fs keeps its client from test to test: the server stays, and making one takes longer than most of these tests. A
    test that sets it up differently clears s3fs's instance cache itself, before and after.
    """
    import s3fs

    for key, value in {
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": s3_server.endpoint,
        "CAPLOOM_MIRROR": str(tmp_path / "mirrors"),
    }.items():
        monkeypatch.setenv(key, value)
    bucket = f"b{uuid.uuid4().hex[:10]}"
    s3fs.S3FileSystem().mkdir(bucket)
    s3_server.seen.clear()
    yield s3_server, bucket
    s3_server.spoil, s3_server.code = (lambda method, path: None), "InternalError"


@pytest.fixture(scope="session")
def gs_server() -> Iterator[str]:
    """A Google Cloud Storage server on loopback: its address."""
    pytest.importorskip("gcsfs")
    from gcp_storage_emulator.server import create_server

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with create_server("127.0.0.1", port, in_memory=True):
        yield f"http://127.0.0.1:{port}"


@pytest.fixture
def gs(gs_server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A fresh bucket: its name."""
    import gcsfs

    monkeypatch.setenv("STORAGE_EMULATOR_HOST", gs_server)
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    monkeypatch.setenv("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")  # what it asks for is another protocol
    gcsfs.GCSFileSystem.clear_instance_cache()
    bucket = f"b{uuid.uuid4().hex[:10]}"
    gcsfs.GCSFileSystem(token="anon", project="any").mkdir(bucket)
    yield bucket
    gcsfs.GCSFileSystem.clear_instance_cache()


@pytest.fixture(params=["memory", "s3", "gs"])
def object_storage_url(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """The URL of a fresh bucket, of each kind of storage; mirrors lie in the test's own folder."""
    monkeypatch.setenv("CAPLOOM_MIRROR", str(tmp_path / "mirrors"))
    if request.param == "memory":
        return f"memory://{uuid.uuid4().hex}"
    if request.param == "gs":
        return f"gs://{request.getfixturevalue('gs')}"
    return f"s3://{request.getfixturevalue('s3')[1]}"


@pytest.fixture(scope="session")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> MadeOnce:
    """Folders that are filled once for all workers."""
    return made_once_of(tmp_path_factory)


@pytest.fixture(scope="session")
def asked(made_once: MadeOnce, tmp_path_factory: pytest.TempPathFactory) -> Factory:
    """A factory that has run to the end, for all questions that leave it as it is: the raw recipe is the worse."""
    return copied(made_once("asked", make_asked), tmp_path_factory.mktemp("asked"))


@pytest.fixture
def own_asked(made_once: MadeOnce, tmp_path: Path) -> Factory:
    """The same with a store of the test's own."""
    return copied(made_once("asked", make_asked), tmp_path)


@pytest.fixture
def own_captioned(made_once: MadeOnce, tmp_path: Path) -> Factory:
    """The same as far as its captions."""
    return copied(made_once("captioned", make_captioned), tmp_path)


@pytest.fixture(scope="session")
def whole(made_once: MadeOnce) -> dict[str, Any]:
    """The settings of a factory of which everything is really made, to be left as it is."""
    return settings_in(made_once("whole", make_whole))


@pytest.fixture
def own_whole(whole: dict[str, Any], tmp_path: Path) -> dict[str, Any]:
    """The same with a store of the test's own, over the same pictures and captions."""
    return moved(whole, tmp_path / "store")
