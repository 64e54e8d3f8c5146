"""The tiny factory, run whole by the headless command here, on S3 and on Ray: the same comes out."""

import json
import shutil

import duckdb
import pytest
import yaml
from tiny_factory import run_headless, tiny_settings, write_settings

from caploom.catalog.catalog import open_catalog
from caploom.catalog.query import ask
from caploom.config.factory import Factory

pytestmark = pytest.mark.slow


def rows(artifacts, name, columns):
    files = [str(each.file(name)) for each in artifacts]
    return duckdb.sql(f"select {columns} from read_parquet($files) order by all", params={"files": files}).fetchall()


def results(factory):
    """What each stage made, without the times."""
    store = factory.store
    sets = {each.manifest.address: each.manifest for each in store.list("training_set")}
    return {
        "ledger": rows(store.list("captions"), "captions.parquet", "image_id, captioner, fingerprint, text, tokens"),
        "sets": {address: {name: file.sha256 for name, file in each.files.items()} for address, each in sets.items()},
        "versions": {each.manifest.address: each.data_version for each in store.list("checkpoint")},
        "metrics": {
            each.manifest.address: [
                {key: value for key, value in one.items() if "second" not in key}
                for one in each.manifest.summary["measurements"]
            ]
            for each in store.list("retrieval_metrics")
        },
    }


def test_a_factory_on_s3_makes_what_a_local_one_does_and_outlives_its_mirror(finished, pictures, s3, tmp_path):
    settings = tiny_settings(pictures) | {"store": f"s3://{s3[1]}/tiny"}
    config = write_settings(tmp_path / "far.yaml", settings)
    run = run_headless(config)
    assert run.code == 0, run.said
    far, local = Factory.from_yaml(config), Factory.from_yaml(finished)
    made = results(far)
    assert json.dumps(made, default=str) == json.dumps(results(local), default=str)
    assert made["ledger"] and made["sets"] and made["metrics"]

    shutil.rmtree(far.store.root)
    written = {path for method, path, _ in s3[0].seen if method == "PUT"}
    s3[0].seen.clear()
    again = Factory.from_yaml(config)
    question = "select kind, count(*) from manifests group by kind order by kind"
    with open_catalog(again.store) as catalog, open_catalog(local.store) as there:
        assert ask(catalog, again.store, question).rows == ask(there, local.store, question).rows
    assert run_headless(config).code == 0
    assert results(again) == made
    more = {path for method, path, _ in s3[0].seen if method == "PUT"} - written
    assert not [path for path in more if path.endswith("manifest.json")], "something was rebuilt"
    assert yaml.safe_load(config.read_text())["store"].startswith("s3://")


def test_a_factory_on_ray_whose_store_is_on_s3_makes_what_a_local_one_does(finished, pictures, s3, tmp_path):
    pytest.importorskip("ray")
    executor = {"kind": "ray", "workers": 2, "gpus_per_worker": 0, "decoders": 1}
    settings = tiny_settings(pictures) | {"store": f"s3://{s3[1]}/tiny", "executor": executor}
    config = write_settings(tmp_path / "ray.yaml", settings)
    run = run_headless(config)
    assert run.code == 0, run.said
    far = Factory.from_yaml(config)
    assert results(far) == results(Factory.from_yaml(finished))
    captions = far.store.list("captions")
    assert all(each.manifest.run_id for each in captions), "a cluster does not know which run it works for"
    assert not [key for key in far.store.bucket.list("captions") if "/pending/" in key], "parts were left on the bucket"
