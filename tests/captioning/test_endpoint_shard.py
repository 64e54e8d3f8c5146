"""Whole shards through the endpoint backend."""

import pytest
from endpoint_server import EndpointServer, name

from caploom.captioning.backend import load_backend
from caploom.errors import CaptionerError
from caploom.stages.captions import caption_shard, check_captions, read_captions
from caploom.stages.graph import Graph
from caploom.stages.raw_pairs import ingest_shard
from caploom.stages.shards import create_new_shards

KEY = "sk-0123456789abcdefghij"


def test_a_run_whose_server_died_is_finished_when_it_is_back(write_source, make_factory, monkeypatch):
    monkeypatch.setenv("A_KEY", KEY)
    source = write_source(40)

    def run(url):
        served = {"backend": "openai", "url": url, "model": "tiny", "prompt": "What is this?", "image_format": "png"}
        served |= {"api_key_env": "A_KEY", "retries": 0, "concurrency": 3}
        factory = make_factory(source, captioners={"served": served}, shard_size=40)
        create_new_shards(factory)
        ingest_shard(factory, "shard-00000")
        settings = factory.config.captioners["served"]
        return factory, caption_shard(factory, "served", "shard-00000", lambda: load_backend(settings, factory.store))

    def reply_for_a_while(question):
        if sum(dying.asked.values()) < 10:
            name(question)
        elif not dying.dead:
            dying.die()

    with (
        EndpointServer(reply_for_a_while) as dying,
        pytest.raises(CaptionerError, match="captions of this run are kept"),
    ):
        run(dying.url)
    with EndpointServer(name) as server:
        factory, artifact = run(server.url)
    captions = read_captions(artifact).to_pylist()
    assert len(captions) == 40
    assert all(outcome.passed for outcome in check_captions(Graph(factory), artifact))
    # Each was paid for once, and another url is the same captioner.
    assert 40 - 9 <= sum(server.asked.values()) <= 40 - 7
    assert not [path for path in source.parent.rglob("*") if path.is_file() and KEY.encode() in path.read_bytes()]
