"""Captioning on a Ray cluster of several nodes, simulated on this machine: the same captions, whatever dies."""

import json
import random
import threading
import time
from collections import Counter

import pytest
from endpoint_server import EndpointServer, wait_until
from PIL import Image
from ray_factory import ingested, kill_who_asks, served, slowly

from caploom.captioning.backend import load_backend
from caploom.errors import CaptionerError, ClusterError
from caploom.stages.captions import (
    caption_shard,
    ledger_of,
    read_captions,
    read_failures,
)
from caploom.stages.graph import Graph
from caploom.stages.on_ray import captions as pipeline
from caploom.stages.on_ray.captions import caption_shards_on_ray
from caploom.stages.stage import Ref

pytestmark = pytest.mark.slow
ray = pytest.importorskip("ray")

KILLS = 5
LARGE = 60  # images of 12 MB
STORE_BYTES = 150_000_000


@pytest.fixture(scope="module")
def cluster():
    """A head with two CPUs, and a node with three."""
    from ray.cluster_utils import Cluster

    node = {"object_store_memory": STORE_BYTES, "include_dashboard": False}
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, **node})
    made.second = made.add_node(num_cpus=3, **node)
    made.wait_for_nodes()
    yield made
    ray.shutdown()
    made.shutdown()


@pytest.fixture
def executor(cluster):
    return {"kind": "ray", "address": cluster.address, "workers": 2, "gpus_per_worker": 0, "decoders": 1}


def said(artifact):
    rows = read_captions(artifact).drop(["seconds"]).to_pylist()
    return sorted(tuple(row.items()) for row in rows)


def test_the_same_captions_as_in_this_process(write_source, executor, monkeypatch):
    monkeypatch.setattr(pipeline, "_ROUND", 2)
    source = write_source(24, extra=[{"image": "missing.png", "caption": "nowhere"}])
    local, shards = ingested(source, store="local")
    settings = local.config.captioners["colours"]
    here = {s: caption_shard(local, "colours", s, lambda: load_backend(settings, local.store)) for s in shards}
    remote, _ = ingested(source, store="remote", executor=executor)
    reports = []
    there = caption_shards_on_ray(remote, "colours", shards, lambda *each: reports.append(each))
    for shard in shards:
        assert said(there[shard]) == said(here[shard])
        assert there[shard].data_version == here[shard].data_version
        assert there[shard].manifest.rows == here[shard].manifest.rows
        assert there[shard].manifest.fingerprint == here[shard].manifest.fingerprint
        assert not there[shard].reused
        assert not ledger_of(remote, Graph(remote).plan(Ref("captions", ("colours", shard)))).under_way(shard).exists()
    assert reports[-1][:2] == (24, 24)
    assert all(each.reused for each in caption_shards_on_ray(remote, "colours", shards).values())


def test_a_node_killed_again_and_again_loses_and_doubles_nothing(write_source, cluster, executor):
    source = write_source(160)
    moments = random.Random(3)
    with EndpointServer(slowly(0.15)) as server:
        factory, shards = ingested(source, captioners=served(server), executor=executor, shard_size=40)
        failed, made = [], {}

        def run():
            try:
                made.update(caption_shards_on_ray(factory, "colours", shards))
            except BaseException as error:  # noqa: BLE001 - whatever it is, the test shows it
                failed.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        for _ in range(KILLS):
            before = server.asked.total()
            wait_until(lambda seen=before: server.asked.total() > seen + 5 or not thread.is_alive(), 60)
            time.sleep(moments.uniform(0, 1))
            cluster.remove_node(cluster.second, allow_graceful=False)
            cluster.second = cluster.add_node(num_cpus=3, object_store_memory=STORE_BYTES)
        thread.join(240)
        assert not thread.is_alive()
    assert not failed, failed
    captioned = Counter(image for each in made.values() for image in read_captions(each)["image_id"].to_pylist())
    assert len(captioned) == 160
    assert set(captioned.values()) == {1}
    assert all(each.manifest.rows.holds and not each.manifest.rows.rows_failed for each in made.values())
    assert not list(factory.store.path("captions").glob("*/*/pending/*/*")), "parts were left"


def test_a_shard_is_finished_while_others_are_still_captioned(write_source, executor):
    source = write_source(120)
    finished_early = []

    def reply(question):
        if server.asked.total() > 90:  # the rest waits for the first shard's tables
            finished_early.append(wait_until(lambda: bool(factory.store.list("captions")), 60))
        slowly(0.0)(question)

    with EndpointServer(reply) as server:
        factory, shards = ingested(source, captioners=served(server, timeout=120), executor=executor, shard_size=30)
        made = caption_shards_on_ray(factory, "colours", shards)
    assert finished_early and all(finished_early)
    assert [len(read_captions(made[shard])) for shard in shards] == [30] * 4


def test_a_slow_captioner_does_not_fill_the_memory_with_decoded_images(tmp_path, executor):
    sources = tmp_path / "source"
    (sources / "images").mkdir(parents=True)
    for number in range(LARGE):
        Image.new("RGB", (2000, 2000), (number, 9, 9)).save(sources / "images" / f"{number}.png")
    rows = [{"image": f"{number}.png", "caption": f"photo {number}"} for number in range(LARGE)]
    (sources / "captions.json").write_text(json.dumps(rows))
    with EndpointServer(slowly(0.3)) as server:
        captioners = served(server, concurrency=2)
        factory, shards = ingested(sources, captioners=captioners, executor=executor, shard_size=LARGE)
        ray.init(address=executor["address"], ignore_reinit_error=True, log_to_driver=False)
        (made,) = caption_shards_on_ray(factory, "colours", shards).values()
    from ray._private.internal_api import memory_summary

    told = memory_summary(stats_only=True)
    ray.shutdown()
    assert len(read_captions(made)) == LARGE
    # Decoded at once they would be 2.4 times what both nodes hold: Ray then writes to disk, and says so.
    assert LARGE * 2000 * 2000 * 3 > 2 * 2 * STORE_BYTES
    assert "Plasma memory usage" in told
    assert "Spilled" not in told


def test_an_image_that_kills_the_captioner_is_a_failure_and_the_others_are_captioned(write_source, executor):
    source = write_source(20)
    poison = []

    def reply(question):
        if question.image.getpixel((0, 0)) == poison[0]:
            kill_who_asks(question)
        else:
            slowly(0.0)(question)

    poison.append(Image.open(source / "images" / "0007.png").convert("RGB").getpixel((0, 0)))
    with EndpointServer(reply) as server:
        factory, shards = ingested(source, captioners=served(server), executor=executor, shard_size=20)
        (made,) = caption_shards_on_ray(factory, "colours", shards).values()
    (failure,) = read_failures(made)
    assert (failure["image"], failure["reason"]) == ("0007.png", "captioner_died")
    assert failure["detail"] == "0007.png: the captioner's process died 2 times over this image alone."
    assert len(read_captions(made)) == 19


def test_a_captioner_that_cannot_be_used_ends_the_run_with_its_sentence(write_source, executor):
    with EndpointServer(slowly(0.0)) as server:
        captioners = served(server)
    factory, shards = ingested(write_source(5), captioners=captioners, executor=executor)
    with pytest.raises(CaptionerError, match="nothing answers there"):
        caption_shards_on_ray(factory, "colours", shards)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"gpus_per_worker": 1}, "a worker asks for 1 GPUs and the largest node of the Ray cluster has 0"),
        ({"cpus_per_worker": 16}, "a worker asks for 16 CPUs and the largest node of the Ray cluster has 3"),
        ({"workers": 9}, "9 workers and a task that decodes need 10 CPUs and the Ray cluster has 5"),
    ],
)
def test_a_cluster_that_lacks_what_is_asked_for_is_said_at_once(write_source, executor, changes, said):
    factory, shards = ingested(write_source(3), executor={**executor, **changes})
    with pytest.raises(ClusterError, match=said):
        caption_shards_on_ray(factory, "colours", shards)


def test_no_cluster_at_the_address(write_source, executor):
    factory, shards = ingested(write_source(3), executor={**executor, "address": "127.0.0.1:9"})
    with pytest.raises(ClusterError, match="no Ray cluster answers there"):
        caption_shards_on_ray(factory, "colours", shards)


def test_a_cluster_of_another_ray_is_named_with_both_versions(write_source, cluster, executor):
    from ray._common.usage.usage_constants import CLUSTER_METADATA_KEY
    from ray._private.ray_constants import KV_NAMESPACE_CLUSTER
    from ray._raylet import GcsClient

    client = GcsClient(address=cluster.address)
    told = client.internal_kv_get(CLUSTER_METADATA_KEY, namespace=KV_NAMESPACE_CLUSTER)
    other = json.dumps({**json.loads(told), "ray_version": "2.9.3"}).encode()
    factory, shards = ingested(write_source(3), executor=executor)
    client.internal_kv_put(CLUSTER_METADATA_KEY, other, overwrite=True, namespace=KV_NAMESPACE_CLUSTER)
    try:
        with pytest.raises(
            ClusterError, match=rf"has another version than here .*Ray: 2\.9\.3.*Ray: {ray.__version__}"
        ):
            caption_shards_on_ray(factory, "colours", shards)
    finally:
        client.internal_kv_put(CLUSTER_METADATA_KEY, told, overwrite=True, namespace=KV_NAMESPACE_CLUSTER)
