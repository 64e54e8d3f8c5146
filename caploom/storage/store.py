"""The store of artifacts, each written completely or not at all.

An artifact is a folder `<root>/<kind>/<name...>/<fingerprint>` with its files and `manifest.json`, written last.
The fingerprint covers everything that the artifact depends on, so work is never done twice, and a new version never
overwrites an old one. A folder without a manifest is unfinished and ignored.
"""

import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from caploom.common.hashing import file_sha256, fingerprint
from caploom.errors import MissingArtifactError, StoreError
from caploom.storage.manifest import MANIFEST, FileRecord, InputRecord, Manifest, RowCount, parse_manifest
from caploom.storage.writing import draft_beside, fsync_path, full_disk_explained, is_abandoned, write_atomically

if TYPE_CHECKING:
    import duckdb

_RECORDED_PACKAGES = [
    "accelerate",
    "duckdb",
    "numpy",
    "open_clip_torch",
    "openai",
    "pandas",
    "pillow",
    "pyarrow",
    "tokenizers",
    "torch",
    "transformers",
]


_REMEMBERED = 10_000  # folders


class Artifact:
    """A finished artifact: its folder and its manifest. `reused` is true when it existed already."""

    def __init__(self, folder: Path | str, manifest: Manifest, *, reused: bool) -> None:
        self._folder = folder
        self.manifest = manifest
        self.reused = reused
        self._record: InputRecord | None = None

    def __repr__(self) -> str:
        return f"Artifact({self.manifest.address!r})"

    @property
    def data_version(self) -> str:
        """Hash of what was written."""
        return self.manifest.data_version

    @property
    def folder(self) -> Path:
        """The local folder of its files."""
        return Path(self._folder)

    @property
    def manifest_path(self) -> Path:
        """The local file of its manifest."""
        return Path(self._folder, MANIFEST)

    def file(self, name: str) -> Path:
        """The path of one of its files; raises `StoreError` when it is gone."""
        path = self.folder / name
        if not path.is_file():
            raise StoreError(
                f"{path}: the manifest next to it names this file but it is gone; "
                f"delete the folder {self.folder} and rebuild the artifact."
            )
        return path

    def as_input(self) -> InputRecord:
        """How an artifact made from this one records it."""
        if self._record is None:
            self._record = InputRecord(address=self.manifest.address, data_version=self.data_version)
        return self._record


class Draft:
    """An artifact being made: `folder` takes the files, the other fields go into the manifest."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.data_version: str | None = None
        self.rows: RowCount | None = None
        self.summary: dict[str, Any] = {}
        self.seeds: dict[str, int] = {}
        self.device = "cpu"


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is about to be made, known before any work: its kind, name, configuration and inputs."""

    kind: str
    name: tuple[str, ...] = ()
    code_version: str
    configuration: dict[str, Any]
    inputs: tuple[InputRecord, ...] = ()

    @property
    def fingerprint(self) -> str:
        """Hash of everything that the artifact depends on."""
        return fingerprint(
            {
                "kind": self.kind,
                "code_version": self.code_version,
                "configuration": self.configuration,
                "inputs": [{"address": each.address, "data_version": each.data_version} for each in self.inputs],
            }
        )

    @property
    def address(self) -> str:
        """Folder of the artifact below the store's root."""
        return "/".join((self.kind, *self.name, self.fingerprint))


class Store:
    """The folder of all artifacts of a factory.

    Example:
        >>> store, plan = Store(Path("store")), Plan(kind="notes", code_version="1", configuration={"by": "me"})
        >>> made = store.make(plan, lambda draft: (draft.folder / "note.txt").write_text("a cat"))
        >>> store.find(plan).file("note.txt").read_text()  # another `make` of the same plan would find it, too
        'a cat'
    """

    def __init__(self, root: Path, *, run_id: str | None = None) -> None:
        self.root = Path(root)
        self._folders: dict[str, str] = {}
        self.run_id = run_id

    def path(self, address: str) -> Path:
        """The folder of an address; raises `StoreError` when it would leave the store."""
        return Path(self._path(address))

    def _path(self, address: str) -> str:
        """The same as text: a question asks for thousands of addresses, and a `Path` costs more than a look at it."""
        above, _, last = address.rpartition("/")
        if last in ("", ".", ".."):
            return self._resolved(address)
        path = f"{self._folder(above)}/{last}"
        return self._resolved(address) if os.path.islink(path) else path  # noqa: PTH114

    def _folder(self, address: str) -> str:
        """The same, remembered: thousands of addresses lie below a name."""
        if address not in self._folders:
            if len(self._folders) > _REMEMBERED:
                self._folders.clear()
            self._folders[address] = self._path(address) if address else str(self.root.resolve())
        return self._folders[address]

    def _resolved(self, address: str) -> str:
        path = (self.root / address).resolve()
        if not path.is_relative_to(self.root.resolve()):
            raise StoreError(f"{address}: this address leaves the store {self.root}.")
        return str(path)

    def find(self, plan: Plan) -> Artifact | None:
        """The finished artifact of a plan, or None."""
        return self.read(plan.address)

    def require(self, plan: Plan, *, make_with: str) -> Artifact:
        """The finished artifact of a plan; raises `MissingArtifactError` saying what makes it."""
        artifact = self.find(plan)
        if artifact is None:
            what = "/".join((plan.kind, *plan.name))
            raise MissingArtifactError(f"{what} has not been made for the present configuration: {make_with} first.")
        return artifact

    def read(self, address: str) -> Artifact | None:
        """The finished artifact at an address, or None; raises `StoreError` when its manifest is damaged."""
        folder = self._path(address)
        manifest_path = f"{folder}/{MANIFEST}"
        text = _content(manifest_path)
        return Artifact(folder, parse_manifest(text, manifest_path), reused=True) if text is not None else None

    def read_listed(self, address: str) -> Artifact | None:
        """The same for a kind that was refreshed before: a store at a URL only reads its mirror."""
        return self.read(address)

    def refresh(self, *parts: str) -> None:
        """Update the local folders below a kind or a name from a store at a URL, before they are walked."""

    def refresh_throttled(self, *parts: str) -> None:
        """The same, but at most a tenth of the time is spent on it: what others have just finished may be missed."""

    def folders(self, address: str) -> Sequence[str]:
        """The names of the folders right below an address."""
        try:
            with os.scandir(self.path(address)) as entries:
                return sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))
        except FileNotFoundError:
            return []

    @property
    def tables_root(self) -> str:
        """The prefix of all tables' names, for DuckDB."""
        return str(self.root.resolve())

    def open_to(self, connection: "duckdb.DuckDBPyConnection") -> None:
        """Let a connection read the tables below `tables_root`."""

    def file(self, address: str, name: str) -> Path:
        """The path of an artifact's file, which may not exist."""
        return self.path(address) / name

    def has_file(self, address: str, name: str) -> bool:
        """Whether an artifact's file exists."""
        return (self.path(address) / name).is_file()

    def url_of(self, address: str, name: str) -> str:
        """The path or URL that a file of an artifact will have, as tables name it."""
        return str(self.path(address) / name)

    def claim(self, address: str, fingerprint: str) -> bool:
        """Whether the folder at an address may have the artifact of this fingerprint, and never another one.

        On one machine a lock ensures that; on several, the first claim wins.
        """
        return True

    def put_shared(self, path: Path, data: bytes) -> None:
        """Store a small file that belongs to no artifact, completely or not at all."""
        write_atomically(path, data)

    def pull_shared(self, pattern: str) -> None:
        """Update shared files (a pattern below the root) from a store at a URL, before they are read."""

    def delete_shared(self, folder: Path) -> None:
        """Delete the shared files below a folder."""
        shutil.rmtree(folder, ignore_errors=True)

    def list(self, *parts: str) -> list[Artifact]:
        """Every finished artifact below a kind or name, in the order of their addresses."""
        found = (self.read_listed(address) for address in self.addresses(*parts))
        return [artifact for artifact in found if artifact is not None]  # else it was deleted since

    def addresses(self, *parts: str) -> Sequence[str]:
        """The addresses of the finished artifacts below a kind or name, in order; nothing is read of them.

        Those of a store at a URL are as they were when it was refreshed.
        """
        return [*_walk(self.path("/".join(parts)), "/".join(parts))]

    @contextmanager
    def writing(self, plan: Plan) -> Iterator[Draft]:
        """Make a plan's artifact in a hidden folder, which becomes the artifact in one rename when the block succeeds.

        When the block raises, nothing remains. A folder left by a killed process is removed by the next attempt.
        """
        target = self.path(plan.address)
        target.parent.mkdir(parents=True, exist_ok=True)
        for left_over in target.parent.glob(f".{target.name}.*"):
            if is_abandoned(left_over):
                shutil.rmtree(left_over, ignore_errors=True)
        draft = Draft(draft_beside(target))
        draft.folder.mkdir()
        started, clock = datetime.now(UTC), time.perf_counter()
        try:
            with full_disk_explained(self.root):
                yield draft
            if draft.rows is not None and not draft.rows.holds:
                raise StoreError(
                    f"{plan.address}: {draft.rows.rows_in} {draft.rows.unit} came in, {draft.rows.rows_out} went out "
                    f"and {draft.rows.rows_failed} failed: rows were lost or duplicated, so nothing was written; "
                    "report this bug."
                )
            manifest = self._manifest(plan, draft, started, time.perf_counter() - clock)
            with full_disk_explained(self.root):
                write_atomically(draft.folder / MANIFEST, manifest.model_dump_json(indent=2).encode())
            self._publish(draft.folder, target)
        finally:
            shutil.rmtree(draft.folder, ignore_errors=True)

    def make(self, plan: Plan, build: Callable[[Draft], None]) -> Artifact:
        """The plan's artifact: the finished one if it exists, else made by `build(draft)` and committed."""
        found = self.find(plan)
        if found is not None:
            return found
        with self.writing(plan) as draft:
            build(draft)
        made = self.read(plan.address)
        if made is None:
            raise StoreError(f"{plan.address}: it was written but is gone; does another program clean this folder?")
        made.reused = False
        return made

    def _publish(self, folder: Path, target: Path) -> None:
        fsync_path(folder)
        if target.exists() and not (target / MANIFEST).exists():
            shutil.rmtree(target)  # unfinished work of a killed process
        try:
            folder.rename(target)
        except OSError:
            if not (target / MANIFEST).exists():
                raise
            # Another process finished the same plan first: its artifact stays, and the caller deletes ours.
        fsync_path(target.parent)

    def _manifest(self, plan: Plan, draft: Draft, started: datetime, seconds: float) -> Manifest:
        files = {
            path.relative_to(draft.folder).as_posix(): FileRecord(sha256=file_sha256(path), size=path.stat().st_size)
            for path in sorted(draft.folder.rglob("*"))
            if path.is_file()
        }
        for path in draft.folder.rglob("*"):
            fsync_path(path)
        return Manifest(
            kind=plan.kind,
            address=plan.address,
            fingerprint=plan.fingerprint,
            data_version=draft.data_version or fingerprint({name: record.sha256 for name, record in files.items()}),
            code_version=plan.code_version,
            configuration=plan.configuration,
            inputs=list(plan.inputs),
            seeds=draft.seeds,
            rows=draft.rows,
            summary=draft.summary,
            files=files,
            packages=package_versions(),
            device=draft.device,
            run_id=self.run_id,
            started=started.isoformat(timespec="seconds"),
            seconds=round(seconds, 3),
        )


def _content(path: str) -> bytes | None:
    """A file's bytes, None without it; of thousands of small files, opening them as Python's is half of the time."""
    try:
        file = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        return b"".join(iter(lambda: os.read(file, 2**16), b""))
    finally:
        os.close(file)


def _walk(folder: Path, address: str) -> Iterator[str]:
    below: list[str] = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name == MANIFEST:
                    yield address
                    return
                if not entry.name.startswith(".") and entry.is_dir():
                    below.append(entry.name)
    except (FileNotFoundError, NotADirectoryError):
        return
    for name in sorted(below):
        yield from _walk(folder / name, f"{address}/{name}" if address else name)


@cache
def package_versions() -> dict[str, str]:
    """The installed versions of the packages that decide results."""
    versions = {}
    for package in _RECORDED_PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return versions
