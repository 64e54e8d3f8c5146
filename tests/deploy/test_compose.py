"""What `deploy/` says is what Caploom is: files, commands, variables, ports and names."""

import re
import shutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
import yaml
from dagster._core.instance.config import dagster_instance_config

from caploom.config.factory_config import load_config
from dagster_project.definitions import CONFIG_VARIABLE
from dagster_project.instance import _SETTINGS as OWN_INSTANCE

DEPLOY = Path(__file__).parents[2] / "deploy"
COMPOSE = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
SERVICES = COMPOSE["services"]


def tool(name):
    found = shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)
    assert found, f"{name} is a development dependency"
    return found


def passes(*command):
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_compose_file_is_of_its_format():
    passes(tool("check-jsonschema"), "--builtin-schema", "vendor.compose-spec", str(DEPLOY / "compose.yaml"))


def test_docker_reads_the_compose_file(monkeypatch):
    docker = shutil.which("docker")
    if docker is None or subprocess.run([docker, "compose", "version"], capture_output=True).returncode:
        pytest.skip("docker compose is not installed")
    for name in ("POSTGRES_PASSWORD", "CAPLOOM_DATA", "CAPLOOM_CONFIG_DIR"):
        monkeypatch.setenv(name, "/any")
    passes(docker, "compose", "--file", str(DEPLOY / "compose.yaml"), "config", "--quiet")


def test_the_dockerfile_is_well_made_and_copies_what_there_is():
    # Wheels are pinned by pyproject.toml's bounds, and the user is made in the file itself.
    passes(tool("hadolint"), "--ignore", "DL3013", "--ignore", "DL3066", str(DEPLOY / "Dockerfile"))
    text = (DEPLOY / "Dockerfile").read_text()
    copied = [word for line in re.findall(r"^COPY (.+)$", text, re.MULTILINE) for word in line.split()[:-1]]
    assert copied
    ignored = (DEPLOY.parent / ".dockerignore").read_text().splitlines()
    for name in copied:
        assert (DEPLOY.parent / name).exists(), name
        assert f"!{name.split('/')[0]}" in ignored, f"{name} does not reach the build"
    assert f"{CONFIG_VARIABLE}=/config/factory.yaml" in text


def test_every_variable_without_a_value_is_explained():
    text = (DEPLOY / "compose.yaml").read_text()
    asked = set(re.findall(r"\$\{(\w+)", text))
    explained = set(re.findall(r"^(\w+)=", (DEPLOY / "env.example").read_text(), re.MULTILINE))
    assert asked == explained
    assert "deploy/.env" in (DEPLOY.parent / ".gitignore").read_text().split()


def test_no_secret_stands_in_a_file():
    given = dict(line.split("=", 1) for line in (DEPLOY / "env.example").read_text().splitlines() if "=" in line)
    assert given["POSTGRES_PASSWORD"] == given["HF_TOKEN"] == ""
    for service in SERVICES.values():
        for name, value in service.get("environment", {}).items():
            assert not re.search("PASSWORD|TOKEN|KEY", name) or value.startswith("${")


def test_the_services_find_each_other():
    workspace = yaml.safe_load((DEPLOY / "workspace.yaml").read_text())
    server = workspace["load_from"][0]["grpc_server"]
    command = SERVICES[server["host"]]["command"]
    assert command[command.index("-p") + 1] == str(server["port"])
    assert command[command.index("--location-name") + 1] == server["location_name"]
    module, attribute = (command[command.index(flag) + 1] for flag in ("-m", "-a"))
    assert callable(getattr(import_module(module), attribute))
    assert SERVICES["webserver"]["ports"] == ["127.0.0.1:3000:3000"]  # nobody else may launch runs
    factory = load_config(DEPLOY / "factory.yaml")
    captioner = factory.captioners["qwen-vl"]
    assert captioner.url == ["http://vllm:8000/v1"]
    assert f"--served-model-name={captioner.model}" in SERVICES["vllm"]["command"]
    assert str(factory.store).startswith("/data/")
    assert any(volume.endswith(":/data") for volume in SERVICES["code"]["volumes"])


def test_the_instance_is_that_of_one_machine_but_for_where_it_keeps_things(tmp_path, monkeypatch):
    monkeypatch.setenv("DAGSTER_POSTGRES_HOST", "postgres")
    shutil.copyfile(DEPLOY / "dagster.yaml", tmp_path / "dagster.yaml")
    settings, _ = dagster_instance_config(str(tmp_path))
    own = yaml.safe_load(OWN_INSTANCE)
    assert {key: settings[key] for key in own} == own
    assert settings["storage"]["postgres"]["postgres_db"]["password"] == {"env": "DAGSTER_POSTGRES_PASSWORD"}
    named = set(re.findall(r"env: (\w+)", (DEPLOY / "dagster.yaml").read_text()))
    assert named <= set(SERVICES["code"]["environment"])
