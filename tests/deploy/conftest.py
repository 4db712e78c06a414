from __future__ import annotations

import shutil

import pytest
import yaml

from tests.helpers.kubernetes_files import FOLDER, OVERLAYS, Document, one, render


@pytest.fixture(scope="session")
def kubectl() -> None:
    """Skip the test without kubectl, which renders the manifests."""
    if shutil.which("kubectl") is None:
        pytest.skip("no kubectl: the manifests are not rendered")


@pytest.fixture(scope="session", params=OVERLAYS)
def documents(request: pytest.FixtureRequest, kubectl: None) -> list[Document]:
    return render(FOLDER / request.param)


@pytest.fixture(scope="session")
def ray_documents(kubectl: None) -> list[Document]:
    return render(FOLDER / "ray")


@pytest.fixture(scope="session")
def cluster(ray_documents: list[Document]) -> Document:
    found: Document = one(ray_documents, "RayService")["spec"]["rayClusterConfig"]
    return found


@pytest.fixture(scope="session")
def serve_config(ray_documents: list[Document]) -> Document:
    found: Document = yaml.safe_load(one(ray_documents, "RayService")["spec"]["serveConfigV2"])
    return found
