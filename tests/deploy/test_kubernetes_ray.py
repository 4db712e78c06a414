"""Manifests of the RayService: valid, and consistent with Ray Serve's configuration."""

from __future__ import annotations

import re

import kubernetes_validate
import pytest
import yaml

from tests.helpers.kubernetes_files import VERSIONS, Document, one, size, templates
from tests.helpers.server import ROOT


def test_pod_templates_are_valid(ray_documents: list[Document], cluster: Document) -> None:
    """There is no schema for a RayService, but there is one for pods."""
    for template in templates(cluster):
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, "spec": {}}
        kubernetes_validate.validate(pod | {"spec": template["spec"]}, VERSIONS[1], strict=True)


def test_selector_matches_the_pods(ray_documents: list[Document], cluster: Document) -> None:
    policy = one(ray_documents, "NetworkPolicy")["spec"]
    for template in templates(cluster):
        labels = template["metadata"]["labels"]
        assert policy["podSelector"]["matchLabels"].items() <= labels.items()
    open_to_all = [rule["ports"] for rule in policy["ingress"] if "from" not in rule]
    assert open_to_all == [[{"port": 8000}]]  # the other ports run programs


@pytest.mark.filterwarnings("ignore:Using extra keyword arguments on `Field`")  # from Ray's schema
def test_serve_config_is_valid(
    ray_documents: list[Document], cluster: Document, serve_config: Document
) -> None:
    schema = pytest.importorskip("ray.serve.schema", reason="no Ray: no schema of its Serve")
    checked = schema.ServeDeploySchema.model_validate(serve_config)
    assert checked.http_options.host == "0.0.0.0"
    assert checked.http_options.port == 8000
    (application,) = checked.applications
    assert application.import_path == "service.cluster:app"
    scaling = [deployment["autoscaling_config"] for deployment in _deployments(serve_config)]
    for each in scaling:
        assert 2 <= each["min_replicas"] <= each["max_replicas"]
    ports = [template["spec"]["containers"][0]["ports"] for template in templates(cluster)]
    assert all({"name": "serve", "containerPort": 8000} in each for each in ports)
    (pinned,) = re.findall(
        r"^ray==(\S+)", (ROOT / "requirements/serve-ray.txt").read_text(), re.MULTILINE
    )
    assert cluster["rayVersion"] == pinned


def test_workers_have_room_for_every_replica(cluster: Document, serve_config: Document) -> None:
    (workers,) = cluster["workerGroupSpecs"]
    container = workers["template"]["spec"]["containers"][0]
    cores = size(container["resources"]["limits"]["cpu"])
    grace = workers["template"]["spec"]["terminationGracePeriodSeconds"]
    for deployment in _deployments(serve_config):
        each = cores // deployment["ray_actor_options"]["num_cpus"]
        scaling = deployment["autoscaling_config"]
        assert each * workers["minReplicas"] >= scaling["min_replicas"]
        assert each * workers["maxReplicas"] >= scaling["max_replicas"]
        assert deployment["graceful_shutdown_timeout_s"] < grace
    assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"


def test_serve_config_equals_the_one_without_kubernetes(serve_config: Document) -> None:
    assert serve_config == yaml.safe_load((ROOT / "ops" / "ray" / "serve.yaml").read_text())


def _deployments(serve_config: Document) -> list[Document]:
    (application,) = serve_config["applications"]
    found: list[Document] = application["deployments"]
    return found
