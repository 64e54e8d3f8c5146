"""The GPU resource with the captioners' weights: a model is loaded once per run, for all its shards."""

import dagster as dg
from pydantic import PrivateAttr

from caploom.captioning.backend import Backend, load_backend
from caploom.captioning.identity import captioner_fingerprint
from caploom.captioning.settings import CaptionerSettings
from caploom.storage.store import Store


class CaptionerModels(dg.ConfigurableResource):
    """At most one captioner's weights at a time, since one GPU holds one model."""

    _fingerprint: str | None = PrivateAttr(default=None)
    _backend: Backend | None = PrivateAttr(default=None)

    def load(self, settings: CaptionerSettings, store: Store) -> Backend:
        """The captioner's model, loaded unless it is the one in memory; another one is released first."""
        fingerprint = captioner_fingerprint(settings)
        if self._backend is None or self._fingerprint != fingerprint:
            self.release()
            self._backend = load_backend(settings, store)
            self._fingerprint = fingerprint
        return self._backend

    def release(self) -> None:
        """Release weights, workers and connections."""
        if self._backend is not None:
            self._backend.close()
        self._backend = self._fingerprint = None

    def teardown_after_execution(self, context: dg.InitResourceContext) -> None:
        """Dagster calls this when the run ends."""
        self.release()
