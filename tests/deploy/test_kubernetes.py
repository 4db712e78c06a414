"""The manifests of ``ops/kubernetes``: valid, and true to what the service does.

They are rendered by ``kubectl kustomize`` and checked against Kubernetes' own schemas, without a
cluster.
"""

from __future__ import annotations

import math
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import kubernetes_validate
import psutil
import pytest
import yaml

from service import __version__
from service.api.paths import PUBLIC
from service.api.routes import health
from service.server.listening import ACCEPT_SECONDS
from service.server.server import FORCE_EXIT_SECONDS
from service.settings import PREFIX, Settings
from tests.deploy.test_ops import faults
from tests.helpers.server import ROOT, Server

if shutil.which("kubectl") is None:
    pytest.skip("no kubectl: the manifests are not rendered", allow_module_level=True)

FOLDER = ROOT / "ops" / "kubernetes"
OVERLAYS = ("base", "overlays/gpu", "overlays/models")
VERSIONS = ("1.27", "1.37")
"""Of Kubernetes: the oldest that the documentation promises, and the newest of the schemas."""
WITHOUT_SCHEMA = {"RayService"}
DOCKERFILE = (ROOT / "Dockerfile").read_text()
GUIDE = (ROOT / "docs" / "kubernetes.md").read_text()
SIZES = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30}

Document = dict[str, Any]


def render(folder: Path) -> list[Document]:
    done = subprocess.run(["kubectl", "kustomize", str(folder)], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    return list(yaml.safe_load_all(done.stdout))


def one(documents: list[Document], kind: str) -> Document:
    (found,) = [document for document in documents if document["kind"] == kind]
    return found


@pytest.fixture(scope="module", params=OVERLAYS)
def documents(request: pytest.FixtureRequest) -> list[Document]:
    return render(FOLDER / request.param)


@pytest.fixture(scope="module")
def ray_documents() -> list[Document]:
    return render(FOLDER / "ray")


@pytest.fixture(scope="module")
def cluster(ray_documents: list[Document]) -> Document:
    found: Document = one(ray_documents, "RayService")["spec"]["rayClusterConfig"]
    return found


@pytest.fixture(scope="module")
def serve_config(ray_documents: list[Document]) -> Document:
    found: Document = yaml.safe_load(one(ray_documents, "RayService")["spec"]["serveConfigV2"])
    return found


def pod_of(documents: list[Document]) -> Document:
    """The specification of the Deployment's pods."""
    found: Document = one(documents, "Deployment")["spec"]["template"]["spec"]
    return found


def container_of(documents: list[Document]) -> Document:
    (found,) = pod_of(documents)["containers"]
    assert isinstance(found, dict)
    return found


def templates(cluster: Document) -> list[Document]:
    """Of a Ray cluster's pods, the head's first."""
    return [group["template"] for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"])]


def size(quantity: str) -> float:
    number, unit = re.fullmatch(r"(\d+)(Ki|Mi|Gi|m|)", quantity).groups()  # type: ignore[union-attr]
    return float(number) * (0.001 if unit == "m" else SIZES.get(unit, 1))


def settings_of(container: Document) -> Settings:
    """What the service would read in it. Fails for a name or a value that it would refuse."""
    given: dict[str, str] = {}
    for variable in container["env"]:
        if not variable["name"].startswith(PREFIX):
            continue
        name = variable["name"].removeprefix(PREFIX).lower()
        if "value" in variable:
            given[name] = variable["value"]
        else:
            _, resource = variable["valueFrom"]["resourceFieldRef"]["resource"].split(".")
            given[name] = str(math.ceil(size(container["resources"]["limits"][resource])))
    return Settings.model_validate(given)


def check_restricted(pod: Document) -> None:
    """By the strictest of Kubernetes' own standards for pods, and a read-only root on top."""
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
    """Each mount has its volume and each volume its mount; /tmp can be written to, and the keys
    lie where the service looks for them, readable by its user."""
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    for container in pod["containers"]:
        mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
        assert set(mounts.values()) == set(volumes)
        assert "emptyDir" in volumes[mounts["/tmp"]]
        keys = settings_of(container).api_keys_file
        assert keys is not None
        assert keys.name == "keys"  # as the guide has it made
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


def test_the_pods_of_ray_are_valid_too(ray_documents: list[Document], cluster: Document) -> None:
    """There is no schema for the whole, but for these parts of it."""
    for template in templates(cluster):
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, "spec": {}}
        kubernetes_validate.validate(pod | {"spec": template["spec"]}, VERSIONS[1], strict=True)


def test_probes_ask_what_is_there_and_takes_no_key(documents: list[Document]) -> None:
    container = container_of(documents)
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    (listens,) = re.findall(r"^ +FIGMENT_PORT=(\d+)", DOCKERFILE, re.MULTILINE)
    routes = {getattr(route, "path", "") for route in health.router.routes}
    asked = {}
    for name in ("startupProbe", "readinessProbe", "livenessProbe"):
        probe = container[name]["httpGet"]
        assert ports[probe["port"]] == int(listens)
        assert probe["path"] in routes & set(PUBLIC)
        asked[name] = probe["path"]
    assert asked == {
        "startupProbe": "/readyz",
        "readinessProbe": "/readyz",
        "livenessProbe": "/healthz",  # not /readyz: who drains or is busy is not to be killed
    }


def test_settings(documents: list[Document]) -> None:
    settings = settings_of(container_of(documents))
    limits = container_of(documents)["resources"]["limits"]
    assert settings.threads == math.ceil(size(limits["cpu"]))
    image = set(re.findall(r"(FIGMENT_\w+)=", DOCKERFILE))
    named = {variable["name"] for variable in container_of(documents)["env"]}
    assert named & image <= {"FIGMENT_DEVICE"}  # the rest of the image's is best left alone
    assert ("nvidia.com/gpu" in limits) == (settings.device == "cuda")


@pytest.mark.parametrize(
    "file",
    [ROOT / "docs" / "kubernetes.md", *FOLDER.rglob("*.yaml"), *(ROOT / "ops" / "proxy").iterdir()],
    ids=lambda file: str(file.relative_to(ROOT)),
)
def test_settings_that_are_spoken_of_exist(file: Path) -> None:
    known = {f"{PREFIX}{name.upper()}" for name in Settings.model_fields}
    assert set(re.findall(rf"\b{PREFIX}\w+", file.read_text())) <= known


def test_services_of_the_namespace_set_nothing(
    documents: list[Document], cluster: Document
) -> None:
    """Kubernetes would tell a Service called figment in FIGMENT_PORT, and others likewise."""
    assert one(documents, "Service")["metadata"]["name"] == "figment"
    for pod in (pod_of(documents), *(template["spec"] for template in templates(cluster))):
        assert pod["enableServiceLinks"] is False


def test_the_end_has_the_time_that_it_takes(documents: list[Document]) -> None:
    settings = settings_of(container_of(documents))
    longest = settings.shutdown_delay + ACCEPT_SECONDS + settings.drain + FORCE_EXIT_SECONDS
    assert longest < pod_of(documents)["terminationGracePeriodSeconds"]
    assert settings.shutdown_delay >= 10  # until every node knows; the default is for one machine
    assert "lifecycle" not in container_of(documents)


def test_pods_are_found(documents: list[Document]) -> None:
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


def test_the_pods_of_ray_are_found(ray_documents: list[Document], cluster: Document) -> None:
    policy = one(ray_documents, "NetworkPolicy")["spec"]
    for template in templates(cluster):
        labels = template["metadata"]["labels"]
        assert policy["podSelector"]["matchLabels"].items() <= labels.items()
    everyone = [rule["ports"] for rule in policy["ingress"] if "from" not in rule]
    assert everyone == [[{"port": 8000}]]  # by any other, programs could be run


def test_some_pod_is_always_there(documents: list[Document]) -> None:
    deployment, scaler = one(documents, "Deployment"), one(documents, "HorizontalPodAutoscaler")
    assert "replicas" not in deployment["spec"]  # it would undo what the autoscaler did
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


def test_the_autoscaler_asks_for_what_there_is(documents: list[Document], server: Server) -> None:
    """By the adapter's rule, from what a server tells."""
    (metric,) = one(documents, "HorizontalPodAutoscaler")["spec"]["metrics"]
    ((rule,),) = yaml.safe_load((FOLDER / "adapter.yaml").read_text())["rules"].values()
    assert metric["pods"]["metric"]["name"] == rule["name"]["as"]
    (series,) = re.findall(r"^(\w+)\{", rule["seriesQuery"])
    query = rule["metricsQuery"].replace("<<.LabelMatchers>>", 'instance="x"')
    query = query.replace("<<.GroupBy>>", "instance")
    assert "<<" not in query
    assert faults(query) == []
    asked = set(re.findall(r"figment_\w+", query))
    assert series in asked
    told = set(re.findall(r"^(\w+) [\d.e+]+$", server.client.get("/metrics").text, re.MULTILINE))
    assert asked <= told
    target = size(metric["pods"]["target"]["averageValue"])
    assert 0 < target < settings_of(container_of(documents)).max_wait  # else it is refused first


def test_resources_fit(documents: list[Document], server: Server) -> None:
    resources = container_of(documents)["resources"]
    assert resources["requests"] == resources["limits"]  # so the cores are its own
    held = psutil.Process(server.process.pid).memory_info().rss
    assert size(resources["limits"]["memory"]) > 1.5 * held


def test_nothing_more_is_allowed_than_needed(documents: list[Document], cluster: Document) -> None:
    for pod in (pod_of(documents), *(template["spec"] for template in templates(cluster))):
        check_restricted(pod)
        check_volumes(pod)
    assert one(documents, "NetworkPolicy")["spec"]["policyTypes"] == ["Ingress", "Egress"]
    assert not one(documents, "NetworkPolicy")["spec"].get("egress")
    assert not [document for document in documents if document["kind"] == "Secret"]


def test_images_are_of_this_version_and_can_be_built(
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


def of_the_guide(folder: Path, base: str) -> list[Document]:
    """What the guide's own ``kustomization.yaml`` on a base makes."""
    blocks = re.findall(r"^```yaml\n(.*?)^```$", GUIDE, re.MULTILINE | re.DOTALL)
    (text,) = [block for block in blocks if f"ops/kubernetes/{base}\n" in block]
    (folder / "figment").symlink_to(ROOT, target_is_directory=True)
    mine = folder / "mine"
    mine.mkdir()
    (mine / "kustomization.yaml").write_text(text)
    (mine / "keys").write_text("a:sha256:" + 64 * "0")
    return render(mine)


def test_the_overlay_of_the_guide(tmp_path: Path) -> None:
    """With all that there is."""
    found = of_the_guide(tmp_path, "base")
    for document in found:
        kubernetes_validate.validate(document, VERSIONS[1], strict=True)
        assert document["metadata"]["namespace"] == "figment"
    image = container_of(found)["image"]
    assert image == f"registry.example/figment:{__version__}-gpu"
    volumes = {volume["name"]: volume for volume in pod_of(found)["volumes"]}
    assert volumes["models"]["persistentVolumeClaim"]["claimName"] == "figment-models"
    name = one(found, "Secret")["metadata"]["name"]
    assert re.fullmatch(r"figment-keys-\w{10}", name)  # another for other keys: pods are replaced
    assert volumes["keys"]["secret"]["secretName"] == name


def test_the_overlay_of_the_guide_for_ray(tmp_path: Path) -> None:
    found = of_the_guide(tmp_path, "ray")
    secret = one(found, "Secret")["metadata"]
    assert secret["namespace"] == one(found, "RayService")["metadata"]["namespace"] == "figment"
    for template in templates(one(found, "RayService")["spec"]["rayClusterConfig"]):
        (container,) = template["spec"]["containers"]
        assert container["image"] == f"registry.example/figment:{__version__}-ray"
        volumes = {volume["name"]: volume for volume in template["spec"]["volumes"]}
        assert volumes["keys"]["secret"]["secretName"] == secret["name"]


@pytest.mark.filterwarnings("ignore:Using extra keyword arguments on `Field`")  # by Ray's schema
def test_ray_serves_what_it_is_given(
    ray_documents: list[Document], cluster: Document, serve_config: Document
) -> None:
    schema = pytest.importorskip("ray.serve.schema", reason="no Ray: no schema of its Serve")
    checked = schema.ServeDeploySchema.model_validate(serve_config)
    assert checked.http_options.host == "0.0.0.0"
    assert checked.http_options.port == 8000
    (application,) = checked.applications
    assert application.import_path == "service.cluster:app"
    scaling = [deployment["autoscaling_config"] for deployment in _deployments(serve_config)]
    for given in scaling:
        assert 2 <= given["min_replicas"] <= given["max_replicas"]
    ports = [template["spec"]["containers"][0]["ports"] for template in templates(cluster)]
    assert all({"name": "serve", "containerPort": 8000} in each for each in ports)
    (pinned,) = re.findall(
        r"^ray==(\S+)", (ROOT / "requirements/serve-ray.txt").read_text(), re.MULTILINE
    )
    assert cluster["rayVersion"] == pinned


def test_ray_has_room_for_every_replica(cluster: Document, serve_config: Document) -> None:
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


def test_ray_serves_the_same_with_and_without_kubernetes(serve_config: Document) -> None:
    assert serve_config == yaml.safe_load((ROOT / "ops" / "ray" / "serve.yaml").read_text())


def _deployments(serve_config: Document) -> list[Document]:
    (application,) = serve_config["applications"]
    found: list[Document] = application["deployments"]
    return found
