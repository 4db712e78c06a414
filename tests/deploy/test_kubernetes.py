"""Manifests of the Deployment: valid, and consistent with the service.

``kubectl kustomize`` renders them, and Kubernetes' own schemas check them, without a cluster.
"""

from __future__ import annotations

import math
import re
from pathlib import Path

import kubernetes_validate
import psutil
import pytest
import yaml

from service import __version__
from service.api.paths import PUBLIC
from service.api.routes import health
from service.server.server import ACCEPT_SECONDS, FORCE_EXIT_SECONDS
from service.settings import PREFIX, Settings
from tests.helpers.kubernetes_files import (
    DOCKERFILE,
    FOLDER,
    GUIDE,
    VERSIONS,
    WITHOUT_SCHEMA,
    Document,
    container_of,
    one,
    pod_of,
    settings_of,
    size,
    templates,
)
from tests.helpers.promql import faults
from tests.helpers.server import ROOT, Server


def check_restricted(pod: Document) -> None:
    """Check the pod against Kubernetes' "restricted" standard, and for a read-only root."""
    everywhere = pod["securityContext"]
    assert everywhere["runAsNonRoot"] is True
    assert everywhere["seccompProfile"] == {"type": "RuntimeDefault"}
    (user,) = re.findall(r"^USER (\d+:\d+)$", DOCKERFILE, re.MULTILINE)
    assert user == f"{everywhere['runAsUser']}:{everywhere['runAsGroup']}"
    for container in pod["containers"]:
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }


def check_volumes(pod: Document) -> None:
    """Check that mounts and volumes match, that /tmp is writable, and that the service can read the
    keys at the path in its settings."""
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    for container in pod["containers"]:
        mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
        assert set(mounts.values()) == set(volumes)
        assert "emptyDir" in volumes[mounts["/tmp"]]
        keys = settings_of(container).api_keys_file
        assert keys is not None
        assert keys.name == "keys"  # the name in the guide
        secret = volumes[mounts[str(keys.parent)]]["secret"]
        assert secret["secretName"] == "figment-keys"
        assert secret["defaultMode"] == 0o440
        assert pod["securityContext"]["fsGroup"] == pod["securityContext"]["runAsUser"]


@pytest.mark.parametrize("version", VERSIONS)
def test_valid_for_kubernetes(
    documents: list[Document], ray_documents: list[Document], version: str
) -> None:
    checked = 0
    for document in (*documents, *ray_documents):
        if document["kind"] not in WITHOUT_SCHEMA:
            kubernetes_validate.validate(document, version, strict=True)
            checked += 1
    assert checked == len(documents) + len(ray_documents) - 1
    assert f"Kubernetes {VERSIONS[0]} or newer" in GUIDE


def test_probes_use_existing_routes_without_a_key(documents: list[Document]) -> None:
    container = container_of(documents)
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    (listens,) = re.findall(r"^ +FIGMENT_PORT=(\d+)", DOCKERFILE, re.MULTILINE)
    routes = {getattr(route, "path", "") for route in health.router.routes}
    probed = {}
    for name in ("startupProbe", "readinessProbe", "livenessProbe"):
        probe = container[name]["httpGet"]
        assert ports[probe["port"]] == int(listens)
        assert probe["path"] in routes & set(PUBLIC)
        probed[name] = probe["path"]
    assert probed == {
        "startupProbe": "/readyz",
        "readinessProbe": "/readyz",
        "livenessProbe": "/healthz",  # not /readyz: a draining or busy pod must not be killed
    }


def test_settings_fit_the_image_and_the_limits(documents: list[Document]) -> None:
    settings = settings_of(container_of(documents))
    limits = container_of(documents)["resources"]["limits"]
    assert settings.threads == math.ceil(size(limits["cpu"]))
    image = set(re.findall(r"(FIGMENT_\w+)=", DOCKERFILE))
    named = {variable["name"] for variable in container_of(documents)["env"]}
    assert named & image <= {"FIGMENT_DEVICE"}  # other settings of the image must stay
    assert ("nvidia.com/gpu" in limits) == (settings.device == "cuda")


@pytest.mark.parametrize(
    "file",
    [ROOT / "docs" / "kubernetes.md", *FOLDER.rglob("*.yaml"), *(ROOT / "ops" / "proxy").iterdir()],
    ids=lambda file: str(file.relative_to(ROOT)),
)
def test_settings_in_documents_exist(file: Path) -> None:
    known = {f"{PREFIX}{name.upper()}" for name in Settings.model_fields}
    assert set(re.findall(rf"\b{PREFIX}\w+", file.read_text())) <= known


def test_service_links_are_off(documents: list[Document], cluster: Document) -> None:
    """With them, Kubernetes sets FIGMENT_PORT for a Service named figment."""
    assert one(documents, "Service")["metadata"]["name"] == "figment"
    for pod in (pod_of(documents), *(template["spec"] for template in templates(cluster))):
        assert pod["enableServiceLinks"] is False


def test_grace_period_covers_shutdown(documents: list[Document]) -> None:
    settings = settings_of(container_of(documents))
    longest = settings.shutdown_delay + ACCEPT_SECONDS + settings.drain + FORCE_EXIT_SECONDS
    assert longest < pod_of(documents)["terminationGracePeriodSeconds"]
    assert settings.shutdown_delay >= 10  # until every node knows; the default is for one machine
    assert "lifecycle" not in container_of(documents)


def test_selectors_match_the_pods(documents: list[Document]) -> None:
    deployment = one(documents, "Deployment")
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    selectors = [
        deployment["spec"]["selector"]["matchLabels"],
        one(documents, "Service")["spec"]["selector"],
        one(documents, "PodDisruptionBudget")["spec"]["selector"]["matchLabels"],
        one(documents, "NetworkPolicy")["spec"]["podSelector"]["matchLabels"],
        *(
            constraint["labelSelector"]["matchLabels"]
            for constraint in pod_of(documents)["topologySpreadConstraints"]
        ),
    ]
    for selector in selectors:
        assert selector
        assert selector.items() <= labels.items()
    ports = {port["name"] for port in container_of(documents)["ports"]}
    (port,) = one(documents, "Service")["spec"]["ports"]
    assert port["targetPort"] in ports
    ((allowed,),) = (rule["ports"] for rule in one(documents, "NetworkPolicy")["spec"]["ingress"])
    assert allowed["port"] in ports
    account = one(documents, "ServiceAccount")
    assert account["metadata"]["name"] == pod_of(documents)["serviceAccountName"]
    assert account["automountServiceAccountToken"] is False
    assert pod_of(documents)["automountServiceAccountToken"] is False


def test_at_least_one_pod_always_runs(documents: list[Document]) -> None:
    deployment, scaler = one(documents, "Deployment"), one(documents, "HorizontalPodAutoscaler")
    assert "replicas" not in deployment["spec"]  # it would override the autoscaler
    target = scaler["spec"]["scaleTargetRef"]
    assert target == {
        "apiVersion": deployment["apiVersion"],
        "kind": deployment["kind"],
        "name": deployment["metadata"]["name"],
    }
    fewest = scaler["spec"]["minReplicas"]
    assert 2 <= fewest < scaler["spec"]["maxReplicas"]
    assert fewest - one(documents, "PodDisruptionBudget")["spec"]["maxUnavailable"] >= 1
    rolling = deployment["spec"]["strategy"]["rollingUpdate"]
    assert fewest - rolling["maxUnavailable"] >= 1
    spare_gpu = "nvidia.com/gpu" not in container_of(documents)["resources"]["limits"]
    assert rolling == {"maxUnavailable": 1 - spare_gpu, "maxSurge": int(spare_gpu)}


@pytest.mark.server
def test_autoscaler_metric_exists(documents: list[Document], server: Server) -> None:
    """The adapter's rule uses metrics that a server exports."""
    (metric,) = one(documents, "HorizontalPodAutoscaler")["spec"]["metrics"]
    ((rule,),) = yaml.safe_load((FOLDER / "adapter.yaml").read_text())["rules"].values()
    assert metric["pods"]["metric"]["name"] == rule["name"]["as"]
    (series,) = re.findall(r"^(\w+)\{", rule["seriesQuery"])
    query = rule["metricsQuery"].replace("<<.LabelMatchers>>", 'instance="x"')
    query = query.replace("<<.GroupBy>>", "instance")
    assert "<<" not in query
    assert faults(query) == []
    probed = set(re.findall(r"figment_\w+", query))
    assert series in probed
    exported = set(
        re.findall(r"^(\w+) [\d.e+]+$", server.client.get("/metrics").text, re.MULTILINE)
    )
    assert probed <= exported
    target = size(metric["pods"]["target"]["averageValue"])
    assert (
        0 < target < settings_of(container_of(documents)).max_wait
    )  # requests are rejected from there


@pytest.mark.server
def test_memory_limit_fits_a_running_server(documents: list[Document], server: Server) -> None:
    resources = container_of(documents)["resources"]
    assert resources["requests"] == resources["limits"]  # for exclusive cores
    used = psutil.Process(server.process.pid).memory_info().rss
    assert size(resources["limits"]["memory"]) > 1.5 * used


def test_pods_have_minimal_rights(documents: list[Document], cluster: Document) -> None:
    for pod in (pod_of(documents), *(template["spec"] for template in templates(cluster))):
        check_restricted(pod)
        check_volumes(pod)
    assert one(documents, "NetworkPolicy")["spec"]["policyTypes"] == ["Ingress", "Egress"]
    assert not one(documents, "NetworkPolicy")["spec"].get("egress")
    assert not [document for document in documents if document["kind"] == "Secret"]


def test_images_have_this_version_and_a_build_target(
    documents: list[Document], cluster: Document
) -> None:
    device = settings_of(container_of(documents)).device
    kinds = {container_of(documents)["image"]: "gpu" if device == "cuda" else "cpu"}
    for template in templates(cluster):
        kinds[template["spec"]["containers"][0]["image"]] = "ray"
    for image, target in kinds.items():
        suffix = "" if target == "cpu" else f"-{target}"
        assert image == f"figment:{__version__}{suffix}"
        assert f" AS {target}\n" in DOCKERFILE
        assert re.search(rf"docker build -t \S+:{__version__}{suffix} ", GUIDE)
