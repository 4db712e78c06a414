"""Overlays that the guide for Kubernetes shows."""

from __future__ import annotations

import re
from pathlib import Path

import kubernetes_validate
import pytest

from service import __version__
from tests.helpers.kubernetes_files import (
    GUIDE,
    VERSIONS,
    Document,
    container_of,
    one,
    pod_of,
    render,
    templates,
)
from tests.helpers.server import ROOT

pytestmark = pytest.mark.usefixtures("kubectl")


def of_the_guide(folder: Path, base: str) -> list[Document]:
    """Documents rendered from the guide's ``kustomization.yaml`` for a base."""
    blocks = re.findall(r"^```yaml\n(.*?)^```$", GUIDE, re.MULTILINE | re.DOTALL)
    (text,) = [block for block in blocks if f"ops/kubernetes/{base}\n" in block]
    (folder / "figment").symlink_to(ROOT, target_is_directory=True)
    mine = folder / "mine"
    mine.mkdir()
    (mine / "kustomization.yaml").write_text(text)
    (mine / "keys").write_text("a:sha256:" + 64 * "0")
    return render(mine)


def test_overlay_with_all_components(tmp_path: Path) -> None:
    found = of_the_guide(tmp_path, "base")
    for document in found:
        kubernetes_validate.validate(document, VERSIONS[1], strict=True)
        assert document["metadata"]["namespace"] == "figment"
    image = container_of(found)["image"]
    assert image == f"registry.example/figment:{__version__}-gpu"
    volumes = {volume["name"]: volume for volume in pod_of(found)["volumes"]}
    assert volumes["models"]["persistentVolumeClaim"]["claimName"] == "figment-models"
    name = one(found, "Secret")["metadata"]["name"]
    assert re.fullmatch(
        r"figment-keys-\w{10}", name
    )  # changes with the keys, which replaces the pods
    assert volumes["keys"]["secret"]["secretName"] == name


def test_overlay_for_ray(tmp_path: Path) -> None:
    found = of_the_guide(tmp_path, "ray")
    secret = one(found, "Secret")["metadata"]
    assert secret["namespace"] == one(found, "RayService")["metadata"]["namespace"] == "figment"
    for template in templates(one(found, "RayService")["spec"]["rayClusterConfig"]):
        (container,) = template["spec"]["containers"]
        assert container["image"] == f"registry.example/figment:{__version__}-ray"
        volumes = {volume["name"]: volume for volume in template["spec"]["volumes"]}
        assert volumes["keys"]["secret"]["secretName"] == secret["name"]
