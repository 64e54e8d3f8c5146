"""The files for Kubernetes: pods by its own schemas, the launcher's settings by Dagster's, names by Caploom's."""

import re
from pathlib import Path

import kubernetes_validate
import pytest
import yaml
from dagster import Shape
from dagster._config import process_config
from dagster_k8s import K8sRunLauncher
from dagster_k8s.models import k8s_model_from_dict, k8s_snake_case_dict
from kubernetes.client import V1Container, V1PodSpec
from packaging.requirements import Requirement

from caploom.common.executors import RayExecutor
from dagster_project.definitions import CONFIG_VARIABLE
from dagster_project.pools import GPU_POOL

DEPLOY = Path(__file__).parents[2] / "deploy"
VALUES = yaml.safe_load((DEPLOY / "helm" / "values.yaml").read_text())
LIMITS = yaml.safe_load((DEPLOY / "helm" / "pool-limits.yaml").read_text())
RAY = yaml.safe_load((DEPLOY / "kuberay" / "raycluster.yaml").read_text())
(LOCATION,) = VALUES["dagster-user-deployments"]["deployments"]
LAUNCHER = VALUES["runLauncher"]["config"]["k8sRunLauncher"]
GROUPS = [RAY["spec"]["headGroupSpec"], *RAY["spec"]["workerGroupSpecs"]]


def check(manifest):
    kubernetes_validate.validate(manifest, kubernetes_validate.latest_version(), strict=True)


def snake_case(settings):
    return {re.sub("[A-Z]", lambda found: f"_{found[0].lower()}", key): value for key, value in settings.items()}


def pod(spec):
    check({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "any"}, "spec": spec})


def test_the_run_launcher_takes_its_settings():
    # The chart's own template writes them so.
    snake = snake_case(LAUNCHER)
    parts = snake_case(snake["run_k8s_config"])
    given = {
        **snake,
        "run_k8s_config": parts,
        "service_account_name": "caploom",
        "instance_config_map": "caploom-instance",
        "postgres_password_secret": VALUES["global"]["postgresqlSecretName"],
        "dagster_home": "/opt/dagster/dagster_home",
    }
    launcher = process_config(Shape(K8sRunLauncher.config_type()), given)
    assert launcher.success, launcher.errors
    container = k8s_snake_case_dict(V1Container, parts["container_config"])
    assert k8s_model_from_dict(V1Container, {"name": "dagster", **container}).resources.limits["nvidia.com/gpu"] == "1"
    spec = k8s_model_from_dict(
        V1PodSpec, {"containers": [], **k8s_snake_case_dict(V1PodSpec, parts["pod_spec_config"])}
    )
    assert spec.node_selector == {"caploom/pool": "gpu"}


def test_the_pods_of_runs_and_of_the_code_location_are_pods():
    config = LAUNCHER["runK8sConfig"]
    image = f"{LOCATION['image']['repository']}:{LOCATION['image']['tag']}"
    common = {"name": "dagster", "image": image, "volumeMounts": LOCATION["volumeMounts"], "env": LOCATION["env"]}
    mounts = [*LOCATION["volumeMounts"], *config["containerConfig"]["volumeMounts"]]
    volumes = [*LOCATION["volumes"], *config["podSpecConfig"]["volumes"]]
    run = {**common, **config["containerConfig"], "volumeMounts": mounts}
    pod({**config["podSpecConfig"], "containers": [run], "volumes": volumes})
    pod({"containers": [common], "volumes": LOCATION["volumes"]})
    assert "resources" not in LOCATION, "a run would have the code location's few instead of the launcher's"
    check(LIMITS)


@pytest.mark.parametrize("group", GROUPS, ids=lambda each: each.get("groupName", "head"))
def test_the_pods_of_the_ray_cluster_are_pods(group):
    pod(group["template"]["spec"])
    assert all(isinstance(value, str) for value in group["rayStartParams"].values()), "KubeRay takes texts alone"


def test_the_code_location_is_caploom_s():
    arguments = LOCATION["dagsterApiGrpcArgs"]
    assert arguments == ["-m", "dagster_project.definitions", "-a", "defs"]
    variables = {each["name"]: each["value"] for each in LOCATION["env"]}
    assert variables[CONFIG_VARIABLE] == "/config/factory.yaml"
    assert LOCATION["includeConfigInLaunchedRuns"] == {"enabled": True}
    mounts = [each["mountPath"] for each in LOCATION["volumeMounts"]]
    assert any(variables["CAPLOOM_MIRROR"].startswith(mount) for mount in mounts)


def test_the_limit_is_of_the_pool_that_assets_are_in():
    command = LIMITS["spec"]["template"]["spec"]["containers"][0]["command"]
    assert command[:5] == ["dagster", "instance", "concurrency", "set", GPU_POOL]
    limit = VALUES["dagsterDaemon"]["runCoordinator"]["config"]["queuedRunCoordinator"]["maxConcurrentRuns"]
    assert int(command[5]) == limit


def test_ray_is_the_image_s_and_the_project_s():
    dockerfile = (DEPLOY / "Dockerfile").read_text()
    (version,) = re.findall(r"^ARG RAY_VERSION=(.+)$", dockerfile, re.MULTILINE)
    assert RAY["spec"]["rayVersion"] == version
    project = (DEPLOY.parent / "pyproject.toml").read_text()
    (wanted,) = re.findall(r'^ray = \["(ray\[data\][^"]+)"', project, re.MULTILINE)
    assert version in Requirement(wanted).specifier
    assert dockerfile.count(",ray") == 2, "both targets bring Ray"


def test_the_factory_s_line_names_the_head():
    text = (DEPLOY / "kuberay" / "raycluster.yaml").read_text()
    (line,) = re.findall(r"executor: (\{.+\})", text)
    executor = RayExecutor.model_validate(yaml.safe_load(line))
    head = f"{RAY['metadata']['name']}-head-svc"
    ports = {each["name"]: each["containerPort"] for each in GROUPS[0]["template"]["spec"]["containers"][0]["ports"]}
    assert executor.address == f"ray://{head}:{ports['client']}"
    gpus = next(group for group in GROUPS if group.get("groupName") == "gpu")
    assert executor.workers <= gpus["maxReplicas"]


def test_no_secret_stands_in_a_file():
    for file in (*(DEPLOY / "helm").iterdir(), *(DEPLOY / "kuberay").iterdir()):
        for key, value in re.findall(r"(\w*(?:[Pp]assword|TOKEN|SECRET|_KEY)\w*): *([^\n]*)", file.read_text()):
            assert key.endswith(("SecretName", "PasswordSecret")) or not value, f"{file}: {key}"
