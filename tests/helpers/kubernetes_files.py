"""Rendered manifests of ``ops/kubernetes``, and the parts of them that tests need."""

from __future__ import annotations

import math
import re
import subprocess
from pathlib import Path
from typing import Any

import yaml

from service.settings import PREFIX, Settings
from tests.helpers.server import ROOT

FOLDER = ROOT / "ops" / "kubernetes"
OVERLAYS = ("base", "overlays/gpu", "overlays/models")
VERSIONS = ("1.27", "1.37")
"""Versions of Kubernetes: the oldest supported one, and the newest with a schema."""
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


def pod_of(documents: list[Document]) -> Document:
    """Specification of the Deployment's pods."""
    found: Document = one(documents, "Deployment")["spec"]["template"]["spec"]
    return found


def container_of(documents: list[Document]) -> Document:
    (found,) = pod_of(documents)["containers"]
    assert isinstance(found, dict)
    return found


def templates(cluster: Document) -> list[Document]:
    """Pod templates of a Ray cluster, the head first."""
    return [group["template"] for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"])]


def size(quantity: str) -> float:
    number, unit = re.fullmatch(r"(\d+)(Ki|Mi|Gi|m|)", quantity).groups()  # type: ignore[union-attr]
    return float(number) * (0.001 if unit == "m" else SIZES.get(unit, 1))


def settings_of(container: Document) -> Settings:
    """Settings that the service reads in the container. Raises for invalid names and values."""
    values: dict[str, str] = {}
    for variable in container["env"]:
        if not variable["name"].startswith(PREFIX):
            continue
        name = variable["name"].removeprefix(PREFIX).lower()
        if "value" in variable:
            values[name] = variable["value"]
        else:
            _, resource = variable["valueFrom"]["resourceFieldRef"]["resource"].split(".")
            values[name] = str(math.ceil(size(container["resources"]["limits"][resource])))
    return Settings.model_validate(values)
