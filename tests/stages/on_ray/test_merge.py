"""Merging on a Ray cluster of two nodes, simulated on this machine: the same files as one process writes."""

import os
import random
import shutil
import signal
import threading
import time

import psutil
import pytest
from large_tables import artifacts_of
from small_factory import ColourBackend, settings_of

from caploom.common.hashing import file_sha256
from caploom.config.factory import Factory
from caploom.config.factory_config import parse_config
from caploom.errors import ClusterError, StoreError, TrainingError
from caploom.stages import training_set as here
from caploom.stages.captions import caption_shard
from caploom.stages.on_ray import merge as there
from caploom.stages.raw_pairs import ingest_shard
from caploom.stages.shards import create_new_shards
from caploom.stages.sheared import shear_recipe
from caploom.stages.training_set import merge_training_set
from caploom.storage.store import Draft
from caploom.storage.tables import read_table
from caploom.training.clip_model import create_clip_model, save_checkpoint
from caploom.training_set.exclusions import Exclusions

pytestmark = pytest.mark.slow
ray = pytest.importorskip("ray")
TOP = {"model": "./scorer", "device": "cpu"}
RECIPES = {
    "plain": {"shear": "first"},
    "filtered": {"filters": ["no_empty", {"max_repeats": 9}, {"near_duplicates": 0.6}, {"language": ["en"]}]},
    "weighed": {"mix": {"weights": {"raw": 1, "colours": 3}, "sub_caption": True}, "filters": [{"min_words": 3}]},
    "rows": {"mix": "concatenate", "filters": [{"keep_top": 0.5, **TOP}]},
    "best": {"mix": {"multi_positive": 2}, "filters": [{"best_of_n": 1, **TOP}]},
}
REASONS = {
    "plain": ["repeated_caption"],
    "filtered": ["no_empty", "max_repeats", "near_duplicates"],
    "weighed": ["min_words"],
    "rows": ["keep_top"],
    "best": [],
}


NODE = {"object_store_memory": 150_000_000, "include_dashboard": False, "num_cpus": 2}


@pytest.fixture(scope="module")
def cluster():
    """A head, and a node that may be lost."""
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args=NODE)
    made.second = made.add_node(**NODE)
    made.wait_for_nodes()
    ray.init(address=made.address, log_to_driver=False, logging_level="warning")
    yield made
    ray.shutdown()
    made.shutdown()


@pytest.fixture(scope="module")
def executor(cluster):
    return {"kind": "ray", "address": cluster.address, "gpus_per_worker": 0}


@pytest.fixture
def factories(write_source, tmp_path, executor):
    """Factories over the same captions, one that merges here, one on the cluster."""
    (tmp_path / "scorer").mkdir()
    save_checkpoint(create_clip_model("picture-book", seed=0), tmp_path / "scorer")
    rows = [{"image": "0000.png", "caption": caption} for caption in ("again", "?!", "photo 0", "a photo 0")]
    source = write_source(40, rows)
    common = {
        "recipes": {name: {"captioners": "all", **recipe} for name, recipe in RECIPES.items()},
        "duplicates": {"near": "off", "leakage": "off"},
    }

    def factory(store, **changes):
        settings = settings_of(source, **common, store=str(tmp_path / store), **changes)
        return Factory.from_config(parse_config(settings, base=tmp_path, source="ray.yaml"))

    local = factory("here")
    for shard in create_new_shards(local):
        ingest_shard(local, shard)
        caption_shard(local, "colours", shard, ColourBackend)
    shutil.copytree(tmp_path / "here", tmp_path / "there")
    return local, factory("there", executor=executor, merge={"memory_gb": 0.1, "ray_above_gb": 0})


def test_every_form_of_recipe_gives_the_same_files(factories, monkeypatch):
    monkeypatch.setattr(there, "count_buckets", lambda size, memory: 3)
    for name in RECIPES:
        made = []
        for factory in factories:
            recipe = factory.config.recipe(name)
            shear_recipe(factory, recipe)
            made.append(merge_training_set(factory, recipe))
        local, remote = (each.manifest for each in made)
        assert remote.files == local.files, name
        assert (remote.data_version, remote.fingerprint) == (local.data_version, local.fingerprint)
        assert remote.rows == local.rows
        assert set(REASONS[name]) <= set(local.rows.reasons), name
        assert local.rows.rows_out >= 40
        assert {**remote.summary, "sample_share_by_source": 0} == {**local.summary, "sample_share_by_source": 0}
        shares = local.summary["sample_share_by_source"]
        assert remote.summary["sample_share_by_source"] == pytest.approx(shares, abs=2e-6)
        assert sorted(path.name for path in made[1].folder.iterdir()) == sorted([*remote.files, "manifest.json"])


def merged(factory, artifacts, folder, merge):
    folder.mkdir()
    images = read_table(artifacts[0][0].file("pairs.parquet"))["image_id"].to_pylist()
    left_out = Exclusions(reasons=dict.fromkeys(images[::7], "near_duplicate_image"))
    recipe, draft = factory.config.recipe("plain"), Draft(folder)
    if merge is here:
        tally, rows_in = here._merge_here(factory, recipe, draft, artifacts, left_out, None)
    else:
        tally, rows_in = there.merge_on_ray(factory, recipe, draft, "f" * 64, artifacts, 0, left_out)
    return tally.row_count(rows_in), {path.name: file_sha256(path) for path in folder.iterdir()}


def workers():
    """Processes of Ray that are at a task of a merge."""
    names = ("ray::cut", "ray::finish", "ray::write")
    found = []
    for process in psutil.process_iter(["cmdline"]):
        line = (process.info["cmdline"] or [""])[0]
        if line.startswith(names):
            found.append(process.pid)
    return found


def test_killed_workers_and_a_lost_node_change_nothing_of_a_larger_set(factories, cluster, tmp_path):
    local, remote = factories
    artifacts = artifacts_of(local.store, images=50_000, captioners=2)
    expected = merged(local, artifacts, tmp_path / "a", here)
    assert len([name for name in expected[1] if name.startswith("rows-")]) == 3
    assert expected[0].reasons["near_duplicate_image"] > 4_000
    artifacts_of(remote.store, images=50_000, captioners=2)
    killed, done, moments = [], threading.Event(), random.Random(1)

    def kill():
        while not done.is_set() and len(killed) < 4:
            for pid in workers()[:1]:
                os.kill(pid, signal.SIGKILL)
                killed.append(pid)
                if len(killed) == 2:
                    cluster.remove_node(cluster.second, allow_graceful=False)
                    cluster.second = cluster.add_node(**NODE)
            time.sleep(moments.uniform(0.1, 0.6))

    thread = threading.Thread(target=kill)
    thread.start()
    try:
        found = merged(remote, artifacts, tmp_path / "b", there)
    finally:
        done.set()
        thread.join()
    assert len(killed) >= 2
    assert found == expected


def test_what_is_wrong_is_one_sentence_and_leaves_nothing(factories):
    _, remote = factories
    recipe = remote.config.recipe("plain")
    shear_recipe(remote, recipe)
    much = remote.config.model_copy(update={"merge": remote.config.merge.model_copy(update={"memory_gb": 1e6})})
    with pytest.raises(ClusterError, match=r"merge\.memory_gb: a task asks for 1e\+06 GB and the largest node"):
        merge_training_set(Factory(much, remote.store), recipe)
    table = next(remote.store.path("sheared").rglob("sheared.parquet"))
    table.write_bytes(b"no parquet")
    with pytest.raises(StoreError, match=r"sheared\.parquet: it cannot be read"):
        merge_training_set(remote, recipe)
    assert remote.store.list("training_set") == []


def test_filters_that_drop_everything_are_refused(factories):
    _, remote = factories
    recipe = remote.config.recipe("weighed")
    step = recipe.filters[0].model_copy(update={"min_words": 99})
    recipe = type(recipe)(**{**vars(recipe), "filters": (step,)})
    shear_recipe(remote, recipe)
    with pytest.raises(TrainingError, match=r"drop all \d+ of its captions \("):
        merge_training_set(remote, recipe)
