"""Balances requests between several servers with the same model, by load, leaving out those that are down."""

import logging
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from caploom.captioning.backend import Generation, ImageRef
from caploom.captioning.endpoint_client import ERROR, TIMEOUT, EndpointClient, EndpointFault
from caploom.captioning.settings import EndpointCaptioner
from caploom.errors import CaptionerError

if TYPE_CHECKING:
    from PIL.Image import Image

_IN_A_ROW = 2
"""After this many unanswered requests a server counts as down: a single one may have been too much for it."""
_FIRST_PAUSE, _LONGEST_PAUSE = 5.0, 60.0  # seconds until a server that is down is tried again
_SHORTEST_WAIT, _LONGEST_WAIT = 0.5, 8.0  # seconds before the next request when all are down


@dataclass
class _Server:
    """One of the servers; `client` is None until something answers there."""

    url: str
    pause: float
    client: EndpointClient | None = None
    under_way: int = 0
    unanswered: int = 0
    asleep_until: float = 0.0
    lock: threading.Lock = field(default_factory=threading.Lock)


class EndpointServers:
    """Like an `EndpointClient`; each request goes to the least busy server that is not down.

    The constructor raises `CaptionerError` when none of them answers, or when only some have the captioner's model.
    """

    def __init__(self, settings: EndpointCaptioner) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._servers = [_Server(url, pause=_FIRST_PAUSE) for url in settings.url]
        faults = [self._open(server) for server in self._servers]
        if all(faults):
            self.close()
            raise next(fault for fault in faults if fault is not None)
        for fault in filter(None, faults):
            logging.getLogger(__name__).warning("%s The other servers do its work until it answers.", fault)
        self._refuse_other_models()

    def ask(self, ref: ImageRef, image: "Image") -> Generation:
        """See `EndpointClient.ask`. A request that one server does not answer goes to another."""
        fault = EndpointFault(ERROR, "no server answers.")
        tried: list[_Server] = []
        for attempt in range(self._settings.retries + len(self._servers)):
            server = self._next(tried)
            tried.append(server)
            if server.asleep_until > time.monotonic():  # and so are all others
                time.sleep(min(_SHORTEST_WAIT * 2**attempt, _LONGEST_WAIT))
            try:
                with self._counted(server):
                    if server.client is None and (missing := self._open(server)) is not None:
                        raise EndpointFault(ERROR, f"{missing}")
                    assert server.client is not None
                    answer = server.client.ask(ref, image)
            except EndpointFault as error:
                if error.reason not in (ERROR, TIMEOUT):
                    raise
                named = error.detail.startswith(server.url)
                fault = EndpointFault(error.reason, error.detail if named else f"{server.url}: {error.detail}")
                self._missed(server)
            else:
                with self._lock:
                    server.unanswered, server.pause, server.asleep_until = 0, _FIRST_PAUSE, 0.0
                return answer
        raise fault

    def close(self) -> None:
        """Close the connections."""
        for server in self._servers:
            if server.client is not None:
                server.client.close()

    def _open(self, server: _Server) -> CaptionerError | None:
        """Connect to a server; returns the fault when that fails."""
        with server.lock:
            if server.client is None:
                try:
                    # The second try should go to another server.
                    server.client = EndpointClient(self._settings, server.url, retries=0)
                except CaptionerError as error:
                    self._missed(server, times=_IN_A_ROW)
                    return error
        return None

    def _refuse_other_models(self) -> None:
        model = self._settings.model
        listed = {server.url: server.client.models() for server in self._servers if server.client is not None}
        listed = {url: names for url, names in listed.items() if names}  # not every server lists its models
        having = [url for url, names in listed.items() if model in names]
        lacking = [url for url, names in listed.items() if model not in names]
        if having and lacking:
            self.close()
            raise CaptionerError(
                f'{lacking[0]}: it does not have the model "{model}", which {having[0]} has; one captioner is one '
                f"model: start it there or remove the address from `url`. It has: {', '.join(listed[lacking[0]][:10])}."
            )

    def _next(self, tried: Sequence[_Server]) -> _Server:
        """The available server with the fewest attempts and then requests; otherwise the one available first."""
        now = time.monotonic()
        with self._lock:
            awake = [server for server in self._servers if server.asleep_until <= now]
            if awake:
                return min(awake, key=lambda each: (sum(each is one for one in tried), each.under_way))
            return min(self._servers, key=lambda each: each.asleep_until)

    @contextmanager
    def _counted(self, server: _Server) -> Iterator[None]:
        with self._lock:
            server.under_way += 1
        try:
            yield
        finally:
            with self._lock:
                server.under_way -= 1

    def _missed(self, server: _Server, times: int = 1) -> None:
        """Count unanswered requests; after some, the server is left out for a while, each time for longer."""
        with self._lock:
            server.unanswered += times
            if server.unanswered >= _IN_A_ROW and server.asleep_until <= time.monotonic():
                server.asleep_until = time.monotonic() + server.pause
                server.pause = min(2 * server.pause, _LONGEST_PAUSE)


def open_endpoint_client(settings: EndpointCaptioner) -> EndpointClient | EndpointServers:
    """The client of the captioner's server, or of its servers."""
    return EndpointServers(settings) if len(settings.url) > 1 else EndpointClient(settings, settings.url[0])
