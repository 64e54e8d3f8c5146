"""Writes artifacts as the library does, but without fsync and with a clock of its own."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from caploom.common.hashing import file_sha256, fingerprint
from caploom.storage.manifest import FileRecord, InputRecord, Manifest, RowCount
from caploom.storage.store import Plan, Store

_BEGUN = datetime(2026, 1, 1, tzinfo=UTC)


class Draft:
    """An artifact that is being written; `record` is there afterwards."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.rows: RowCount | None = None
        self.summary: dict[str, Any] = {}
        self.seeds: dict[str, int] = {}
        self.record: InputRecord


class Writer:
    """Writes artifacts; each begins two seconds after the one before."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.made: list[InputRecord] = []

    @contextmanager
    def writing(self, plan: Plan) -> Iterator[Draft]:
        """Write the files of a plan's artifact into the draft's folder; the manifest follows."""
        draft = Draft(self.store.path(plan.address))
        draft.folder.mkdir(parents=True)
        yield draft
        files = {
            path.relative_to(draft.folder).as_posix(): FileRecord(sha256=file_sha256(path), size=path.stat().st_size)
            for path in sorted(draft.folder.rglob("*"))
            if path.is_file()
        }
        started = _BEGUN + timedelta(seconds=2 * len(self.made))
        manifest = Manifest(
            kind=plan.kind,
            address=plan.address,
            fingerprint=plan.fingerprint,
            data_version=fingerprint({name: record.sha256 for name, record in files.items()}),
            code_version=plan.code_version,
            configuration=plan.configuration,
            inputs=list(plan.inputs),
            seeds=draft.seeds,
            rows=draft.rows,
            summary=draft.summary,
            files=files,
            started=started.isoformat(timespec="seconds"),
            seconds=1.5,
        )
        (draft.folder / "manifest.json").write_text(manifest.model_dump_json(indent=2), encoding="utf-8")
        draft.record = InputRecord(address=plan.address, data_version=manifest.data_version)
        self.made.append(draft.record)
