"""The walls between rooms, beside the import contracts of ``pyproject.toml``."""

from __future__ import annotations

import ast
import importlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.server import ROOT

RUNTIMES = {"onnxruntime", "onnx", "torch"}
SERVER_SIDE = RUNTIMES | {"deflate", "fastapi", "uvicorn", "pyarrow", "ray"}
MAX_LINES = 400
PACKAGES = ("figment", "service", "training")


def sources(*folders: str) -> list[Path]:
    """Python files below ``folders``."""
    return [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]


def room_of(module: str) -> str:
    """``service.engine`` of ``service.engine.queue``; a module beside the rooms is its own."""
    return ".".join(module.split(".")[:2])


def name_of(path: Path) -> str:
    """Dotted name of a module."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imports(path: Path) -> Iterator[tuple[str, str]]:
    """Modules of ours that a file imports, each with the name that it takes from there."""
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.ImportFrom) or node.module is None:
            continue
        if node.module.partition(".")[0] in PACKAGES:
            yield from ((node.module, alias.name) for alias in node.names)


def loaded_by(modules: str) -> set[str]:
    """Top-level packages in memory after ``modules`` were imported in a new process."""
    program = f"import json, sys, {modules}; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return {name.partition(".")[0] for name in json.loads(done.stdout)}


CLUSTER = "service.cluster.middleware, service.cluster.autoscaling"
CLIENT = "service.client, service.client.fetch, service.datasets.plan_file"


@pytest.mark.parametrize(
    ("modules", "forbidden"),
    [
        (f"{CLUSTER}, {CLIENT}", SERVER_SIDE),
        ("service.api.middleware.gateway, service.server.server", RUNTIMES),
        ("service.app", {"torch", "ray", "pyarrow"}),
        ("training.plots.figures", {"matplotlib"}),
    ],
)
def test_importing_modules_loads_no_more_than_they_need(modules: str, forbidden: set[str]) -> None:
    assert not loaded_by(modules) & forbidden


def test_rooms_import_only_what_others_export() -> None:
    """``__all__`` of a room lists the modules, or the names, that other rooms may import."""
    private = []
    for path in sources(*PACKAGES):
        for module, name in imports(path):
            room = room_of(module)
            if room in (room_of(name_of(path)), module.partition(".")[0]):
                continue
            package = importlib.import_module(room)
            if not hasattr(package, "__path__"):
                continue
            used = module.split(".")[2] if module != room else name
            if used not in package.__all__:
                private.append(f"{name_of(path)} imports {room}: {used}")
    assert not private


def test_what_a_room_exports_is_there() -> None:
    for package in PACKAGES:
        for folder in sorted((ROOT / package).iterdir()):
            if not (folder / "__init__.py").exists():
                continue
            room = importlib.import_module(f"{package}.{folder.name}")
            assert room.__doc__
            for name in getattr(room, "__all__", ()):
                module = folder / name
                is_module = module.with_suffix(".py").exists() or module.is_dir()
                # A lazy name is not loaded here: it would load Ray.
                exported = name in vars(room) or "__getattr__" in vars(room)
                assert is_module or exported, f"{room.__name__} has no {name}"


def test_files_are_short() -> None:
    folders = (*PACKAGES, "tests", "benchmarks", "requirements")
    long = {
        str(path.relative_to(ROOT)): lines
        for path in sources(*folders)
        if (lines := len(path.read_text().splitlines())) > MAX_LINES
    }
    assert not long
