"""Serves the factory's reports next to the Dagster UI, read-only: a page of the UI cannot open a file on the disk.

Only files that a finished artifact's manifest names are served, and only types that a report shows or links to.
"""

import http.server
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from caploom.errors import StoreError
from caploom.report.make import KIND
from caploom.storage.manifest import MANIFEST
from caploom.storage.opening import open_store
from caploom.storage.store import Store

URL_VARIABLE = "CAPLOOM_REPORTS_URL"
"""Where the pages are, for the code location: the environment variable is set by `dagster_project.ui`."""

_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".md": "text/plain; charset=utf-8",
    ".json": "application/json; charset=utf-8",
    ".svg": "image/svg+xml",
}


def reports_url() -> str | None:
    """The address of the newest report while the UI is open, else None."""
    return os.environ.get(URL_VARIABLE) or None


@contextmanager
def serving_reports(root: Path | str, host: str) -> Iterator[str]:
    """Serve the reports of the store at `root` on a free port of the host; returns the address of the newest report."""
    handler = type("_ReportsOf", (_Reports,), {"store": open_store(root)})
    server = http.server.ThreadingHTTPServer((host, 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, name="reports", daemon=True)
    thread.start()
    shown = f"[{host}]" if ":" in host else host
    try:
        yield f"http://{shown}:{server.server_port}/"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Reports(http.server.BaseHTTPRequestHandler):
    """Answers with a file of an artifact; the first page leads to the newest report."""

    store: Store
    server_version = "caploom"

    def do_GET(self) -> None:
        """A file, or a redirect to the newest report."""
        self._answer(body=True)

    def do_HEAD(self) -> None:
        """The same without the content."""
        self._answer(body=False)

    def log_message(self, format: str, *args: object) -> None:
        """Log nothing: the terminal is the UI's."""

    def _answer(self, *, body: bool) -> None:
        address = unquote(urlsplit(self.path).path).strip("/")
        if not address:
            newest = newest_report(self.store)
            if newest is None:
                self._send_text(404, "No report has been made yet: materialize ablation_report.", body=body)
                return
            self.send_response(302)
            self.send_header("Location", f"/{newest}/report.html")
            self.end_headers()
            return
        path = served_file(self.store, address)
        if path is None:
            self._send_text(404, "There is no such page; the newest report is at /.", body=body)
            return
        self._send(200, _TYPES[path.suffix], path.read_bytes(), body=body)

    def _send_text(self, status: int, sentence: str, *, body: bool) -> None:
        self._send(status, "text/plain; charset=utf-8", sentence.encode(), body=body)

    def _send(self, status: int, content_type: str, data: bytes, *, body: bool) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        if body:
            self.wfile.write(data)


def newest_report(store: Store) -> str | None:
    """The address of the newest report."""
    reports = store.list(KIND)
    return max(reports, key=lambda report: report.manifest.started).manifest.address if reports else None


def served_file(store: Store, name: str) -> Path | None:
    """The file that may be served under a name relative to the store, or None.

    A file of a finished artifact: its manifest, or one that the manifest names. Nothing else on the disk is served.
    """
    parts = PurePosixPath(name).parts
    if PurePosixPath(name).suffix not in _TYPES or any(part.startswith(".") for part in parts):
        return None
    for depth in range(len(parts) - 1, 0, -1):
        try:
            artifact = store.read("/".join(parts[:depth]))
        except StoreError:
            return None
        if artifact is not None:
            inside = "/".join(parts[depth:])
            if inside != MANIFEST and inside not in artifact.manifest.files:
                return None
            folder = artifact.manifest_path.parent
            path = store.file(artifact.manifest.address, inside).resolve()
            return path if path.is_relative_to(folder) and path.is_file() else None
    return None
