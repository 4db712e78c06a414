from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from PIL import Image

from tests.helpers.documents import DOCS, anchors
from tests.helpers.server import ROOT, Server

REQUIREMENTS = ROOT / "requirements" / "README.md"
PAGES = [*sorted(ROOT.glob("*.md")), REQUIREMENTS, *sorted(DOCS.glob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if not target.startswith("http"):
            name, _, anchor = target.partition("#")
            other = page.parent / name if name else page
            assert other.exists(), target
            assert not anchor or anchor in anchors(other), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_and_modules_exist(page: Path) -> None:
    text = page.read_text()
    paths = re.findall(r"`((?:service|training|tests|benchmarks|ops)/[\w/.-]+)`", text)
    paths += [
        module.replace(".", "/")
        for module in re.findall(r"-m ((?:service|training|benchmarks|tests)[\w.]*)", text)
    ]
    assert [path for path in paths if not _exists(path)] == []


def _exists(path: str) -> bool:
    return (ROOT / path).exists() or (ROOT / f"{path}.py").exists()


def test_index_lists_every_page() -> None:
    listed = set(re.findall(r"\]\((\w+\.md)", (DOCS / "index.md").read_text()))
    assert {page.name for page in DOCS.glob("*.md")} - listed == {"index.md"}


def test_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 200


@pytest.mark.server
@pytest.mark.parametrize("path", sorted((ROOT / "models").glob("*/*/README.md")), ids=str)
def test_requests_in_model_cards(server: Server, tmp_path: Path, path: Path) -> None:
    (command,) = re.findall(r"```sh\n(.*?)```", path.read_text(), re.DOTALL)
    command = command.replace("localhost:8000", server.url.removeprefix("http://"))
    subprocess.run(["bash", "-c", command], cwd=tmp_path, check=True, timeout=60)
    with Image.open(tmp_path / "samples.png") as image:
        image.load()
