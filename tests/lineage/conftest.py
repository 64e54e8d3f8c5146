"""A factory that has run to the end, once for all questions that leave it as it is."""

import pytest
from asked_factory import captioned, measured, write_factory

from caploom.factory import Factory


@pytest.fixture(scope="session")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Factory:
    """Both recipes measured; the raw one is the worse."""
    factory = captioned(write_factory(tmp_path_factory.mktemp("asked")))
    measured(factory, "raw-only", noise=2.0)
    measured(factory, "sheared", noise=0.5)
    return factory
