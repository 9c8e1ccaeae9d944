"""What deploy/ has fits the program: image, command, options, ports, token, and the names of metrics."""

from __future__ import annotations

import json
import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from packaging.requirements import Requirement

from jobs.cli import app
from pipeline.cluster.instruments import METRICS

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
MANIFESTS = ("raycluster.yaml", "rayjob.yaml")


def read(name: str) -> dict[str, Any]:
    """Return a manifest, which is one document."""
    (found,) = yaml.safe_load_all((ROOT / "deploy" / name).read_text())
    return dict(found)


def cluster_of(manifest: dict[str, Any]) -> dict[str, Any]:
    """Return the cluster that a manifest describes."""
    return dict(manifest["spec"].get("rayClusterSpec", manifest["spec"]))


def pods(manifest: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield every pod of a manifest."""
    cluster = cluster_of(manifest)
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        yield group["template"]["spec"]
    if "submitterPodTemplate" in manifest["spec"]:
        yield manifest["spec"]["submitterPodTemplate"]["spec"]


def check_command(words: list[str]) -> None:
    """Parse a command line of `iarn`, and of what it submits; whatever is wrong is raised."""
    commands: Any = typer.main.get_command(app)
    assert words[0] == "iarn"
    context = commands.commands[words[1]].make_context(words[1], words[2:])
    if words[1] == "submit":
        check_command(["iarn", context.params["command"], *context.params["arguments"]])


@pytest.mark.parametrize("name", MANIFESTS)
def test_manifests_run_the_image_that_is_built(name: str) -> None:
    """Protects a rollout: every container has the image of the Dockerfile's own command, tagged with this version, and the
    cluster runs a Ray that the package asks for, whose programs are where any shell finds them."""
    manifest, dockerfile = read(name), (ROOT / "Dockerfile").read_text()
    assert manifest["apiVersion"] == "ray.io/v1"
    assert manifest["kind"] == {"raycluster.yaml": "RayCluster", "rayjob.yaml": "RayJob"}[name]
    (built,) = re.findall(r"docker build -t (\S+) \.", dockerfile)
    assert built == f"iarn:{PROJECT['version']}"
    assert {container["image"] for pod in pods(manifest) for container in pod["containers"]} == {built}
    (ray,) = [each for each in map(Requirement, PROJECT["dependencies"]) if each.name == "ray"]
    assert ray.specifier.contains(cluster_of(manifest)["rayVersion"])
    assert 'ENTRYPOINT ["iarn"]' in dockerfile
    assert "wget" in dockerfile
    assert "/opt/iarn/bin/iarn /opt/iarn/bin/ray /usr/local/bin/" in dockerfile


@pytest.mark.parametrize("name", MANIFESTS)
def test_manifests_say_what_clusters_need(name: str) -> None:
    """Protects the cluster: ports have the names and numbers that Ray has, requests are made, every pod has the token by
    reference and not in writing, GPU nodes come and go, also those that may be taken away."""
    manifest = read(name)
    cluster = cluster_of(manifest)
    (head,) = cluster["headGroupSpec"]["template"]["spec"]["containers"]
    ports = {port["name"]: port["containerPort"] for port in head["ports"]}
    assert ports == {"gcs": 6379, "dashboard": 8265, "client": 10001, "metrics": 8080}
    assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    for pod in pods(manifest):
        for container in pod["containers"]:
            environment = {each["name"]: each for each in container["env"]}
            assert environment["RAY_AUTH_MODE"]["value"] == "token"
            reference = environment["RAY_AUTH_TOKEN"]["valueFrom"]["secretKeyRef"]
            assert reference == {"name": "iarn-ray-token", "key": "auth_token"}
            assert {"cpu", "memory"} <= container["resources"]["requests"].keys()
    assert cluster["enableInTreeAutoscaling"] is True
    (group,) = cluster["workerGroupSpecs"]
    assert (group["minReplicas"], group["maxReplicas"]) == (0, 40)
    worker = group["template"]["spec"]
    assert worker["containers"][0]["resources"]["requests"]["nvidia.com/gpu"] == "1"
    assert {"nvidia.com/gpu", "spot"} <= {each["key"] for each in worker["tolerations"]}
    assert not re.search(r"AKIA|aws_secret", (ROOT / "deploy" / name).read_text(), re.IGNORECASE)


def test_commands_of_manifests_are_the_programs_own() -> None:
    """Protects the first night: what a manifest runs, and what its head comment has you type, are commands and options."""
    entrypoint = shlex.split(read("rayjob.yaml")["spec"]["entrypoint"])
    check_command(entrypoint)
    assert entrypoint[entrypoint.index("--address") + 1] == "auto"
    assert "--may-grow" in entrypoint, "the cluster begins without a GPU"
    typed = re.findall(r"^#.*? (iarn submit .*)$", (ROOT / "deploy" / "raycluster.yaml").read_text(), re.MULTILINE)
    assert typed
    for line in typed:
        check_command(shlex.split(line))


def shown_metrics() -> set[str]:
    """Return the metrics that the dashboard asks for, without Ray's prefix."""
    return set(re.findall(r"\bray_(\w+)", (ROOT / "deploy" / "grafana.json").read_text()))


def test_the_dashboard_shows_the_metrics_that_there_are() -> None:
    """Protects the operator's view: the dashboard asks for every metric of a job, and for none that nobody publishes."""
    dashboard = json.loads((ROOT / "deploy" / "grafana.json").read_text())
    assert shown_metrics() == set(METRICS)
    assert all(panel["targets"] for panel in dashboard["panels"])
    numbers = [panel["id"] for panel in dashboard["panels"]]
    assert len(numbers) == len(set(numbers)) >= 10
