"""Mirroring to MLflow, read back from real stores of it; and servers that do not play along."""

import logging
import os
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from whole_factory import edited, factory_of

from caploom.config.factory_config import parse_config
from caploom.errors import ConfigError
from caploom.exports.mlflow_mirror import mirror_metrics
from caploom.stages.graph import Graph
from caploom.stages.stage import Ref

mlflow = pytest.importorskip("mlflow")

SECRET = "s3cret"


@pytest.fixture
def mirror(whole):
    """Mirrors a recipe of the factory to an address."""

    def call(uri, name="both", **more):
        factory = factory_of({**whole, "mlflow": {"tracking_uri": str(uri), "experiment": "ours"}})
        recipe = factory.config.recipe(name)
        metrics = Graph(factory).find(Ref("retrieval_metrics", (recipe.name,)))
        return mirror_metrics(factory, recipe, metrics, **more)

    return call


@pytest.fixture
def client(monkeypatch):
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    return lambda uri: mlflow.MlflowClient(tracking_uri=str(uri))


@pytest.mark.parametrize("store", ["folder", "sqlite:///{}/runs.db"])
def test_a_run_has_parameters_metrics_losses_tags_and_files(whole, mirror, client, tmp_path, store, monkeypatch):
    (here := tmp_path / "here").mkdir()
    monkeypatch.chdir(here)
    uri = tmp_path / "runs" if store == "folder" else store.format(tmp_path)
    factory = factory_of(whole)
    (report,) = factory.store.list("ablation_report")
    done = mirror(uri, report=report)
    assert (done.again, done.problem) == (False, None)
    runs = client(uri)
    run = runs.get_run(done.run_id)
    assert (run.info.status, run.info.run_name) == ("FINISHED", "both")
    assert run.data.params["captioners"] == "first, second"
    assert (run.data.params["shear"], run.data.params["seed"], run.data.params["trainer.steps"]) == ("words", "0", "1")
    (metrics,) = factory.store.list("retrieval_metrics", "both")
    (measured,) = metrics.manifest.summary["measurements"]
    for direction in ("image_to_text", "text_to_image"):
        for k in (1, 5, 10):
            name = f"zero-shot/held-out/cosine/{direction}/recall_at_{k}"
            assert run.data.metrics[name] == measured[direction][f"recall@{k}"]
    assert run.data.metrics["zero-shot/held-out/cosine/rsum"] == pytest.approx(measured["rsum"])
    (checkpoint,) = factory.store.list("checkpoint", "both")
    curve = [[each.step, each.value] for each in runs.get_metric_history(done.run_id, "loss")]
    assert curve == checkpoint.manifest.summary["losses"]
    assert run.data.tags["caploom.retrieval_metrics"] == metrics.manifest.address
    assert run.data.tags["caploom.checkpoint"] == checkpoint.manifest.address
    assert run.data.tags["caploom.training_set"].startswith("training_set/both/")
    fingerprints = {each.manifest.address.split("/")[2] for each in factory.store.list("captions")}
    assert {run.data.tags["caploom.captioner.first"], run.data.tags["caploom.captioner.second"]} == fingerprints
    files = {each.path for each in runs.list_artifacts(done.run_id)}
    assert {"manifest.json", "ablation_report"} <= files
    assert list(here.iterdir()) == []


def test_the_same_metrics_are_mirrored_once_and_a_half_written_run_is_replaced(mirror, client, tmp_path):
    uri = tmp_path / "runs"
    first, second, other = mirror(uri), mirror(uri), mirror(uri, "one")
    assert (second.run_id, second.again) == (first.run_id, True)
    assert other.run_id != first.run_id
    runs = client(uri)
    runs.update_run(first.run_id, status="RUNNING")
    third = mirror(uri)
    assert third.run_id != first.run_id
    experiment = runs.get_experiment_by_name("ours").experiment_id
    assert {run.info.run_id for run in runs.search_runs([experiment])} == {other.run_id, third.run_id}


class _Refusing(BaseHTTPRequestHandler):
    """Answers everything with 401."""

    def do_GET(self):
        self.send_response(401)
        self.end_headers()
        self.wfile.write(b"who are you?")

    do_POST = do_GET

    def log_message(self, *parts):
        pass


@pytest.fixture
def refusing():
    server = HTTPServer(("127.0.0.1", 0), _Refusing)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_port
    server.shutdown()


@pytest.mark.parametrize("answers", [True, False])
def test_a_server_that_does_not_play_along_is_a_warning_without_its_password(mirror, refusing, caplog, answers, capfd):
    caplog.set_level(logging.DEBUG)
    port = refusing if answers else 9
    environment = dict(os.environ)
    done = mirror(f"http://user:{SECRET}@127.0.0.1:{port}/ml?key={SECRET}")
    assert done.run_id is None
    assert done.problem.startswith(f"The metrics of both were not mirrored to MLflow at http://127.0.0.1:{port}/ml: ")
    (record,) = [each for each in caplog.records if each.levelno >= logging.WARNING]
    assert record.getMessage() == done.problem
    written = capfd.readouterr()
    assert SECRET not in caplog.text + written.out + written.err + str(done)
    assert os.environ == environment


def test_a_folder_that_cannot_be_made_is_a_warning(mirror, tmp_path):
    (tmp_path / "file").write_text("")
    assert "were not mirrored" in mirror(tmp_path / "file" / "runs").problem


def test_without_the_key_nothing_is_mirrored(whole):
    factory = factory_of(whole)
    recipe = factory.config.recipe("both")
    assert mirror_metrics(factory, recipe, Graph(factory).find(Ref("retrieval_metrics", (recipe.name,)))) is None


def test_the_address_is_never_shown_and_paths_start_from_the_yaml(whole, tmp_path):
    def config(uri):
        return parse_config(
            edited(whole, "mlflow", value={"tracking_uri": uri, "experiment": "x"}), base=tmp_path, source="t"
        )

    loaded = config(f"https://user:{SECRET}@host/path?key={SECRET}")
    assert SECRET not in f"{loaded!r} {loaded.model_dump()} {loaded.model_dump_json()} {loaded.mlflow.shown}"
    assert config("./runs").mlflow.tracking_uri.get_secret_value() == str(tmp_path / "runs")
    assert config("sqlite:///runs.db").mlflow.tracking_uri.get_secret_value() == f"sqlite:///{tmp_path}/runs.db"
    with pytest.raises(ConfigError, match=r"mlflow\.tracking_uri: an address begins with one of") as error:
        config(f"ftp://user:{SECRET}@host")
    assert SECRET not in str(error.value)
