"""The YAML's `executor`, and what is said where Ray is not installed."""

import sys

import pytest
from ray_factory import ingested

from caploom.errors import ClusterError, ConfigError
from caploom.stages.on_ray.captions import caption_shards_on_ray


def test_here_by_default_and_on_ray_by_one_word(write_source):
    source = write_source(3)
    assert ingested(source)[0].config.executor.kind == "local"
    executor = ingested(source, executor="ray")[0].config.executor
    assert (executor.address, executor.workers, executor.gpus_per_worker) == (None, 1, 1.0)


@pytest.mark.parametrize(
    ("executor", "said"),
    [
        ("rey", "allowed: local, ray"),
        ({"kind": "ray", "workers": 0}, "workers"),
        ({"kind": "local", "workers": 2}, "workers"),
    ],
)
def test_another_word_or_number_is_refused(write_source, executor, said):
    with pytest.raises(ConfigError, match=said):
        ingested(write_source(3), executor=executor)


def test_without_ray_its_extra_is_named(write_source, monkeypatch):
    factory, shards = ingested(write_source(3), executor="ray")
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ClusterError, match=r"pip install 'caploom\[ray\]'"):
        caption_shards_on_ray(factory, "colours", shards)
