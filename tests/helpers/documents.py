"""Markdown pages as tests read them: code blocks, tables, headings; and running what they show."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from tests.helpers.server import ROOT, environment

DOCS = ROOT / "docs"


def blocks(page: Path, *kinds: str) -> list[tuple[str, str]]:
    """(kind, code) of each fenced block of these kinds, in order."""
    return blocks_of(page.read_text("utf-8"), *kinds)


def blocks_of(text: str, *kinds: str) -> list[tuple[str, str]]:
    """As ``blocks``, of a part of a page."""
    found = re.findall(r"^```(.+?)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [(kind, code) for kind, code in found if kind in kinds]


def section(page: Path, heading: str) -> str:
    """Text below ``heading``, up to the next heading of any level."""
    _, _, rest = page.read_text("utf-8").partition(f"\n{heading}\n")
    assert rest, f"{page.name} has no {heading!r}"
    return re.split(r"^#+ ", rest, maxsplit=1, flags=re.MULTILINE)[0]


def first_cells(text: str) -> set[str]:
    """Everything in backquotes in the first cell of any table row."""
    cells = re.findall(r"^\| ([^|]+) \|", text, re.MULTILINE)
    return {name for cell in cells for name in re.findall(r"`([^`]+)`", cell)}


def anchors(page: Path) -> list[str]:
    """Targets of links to the headings of a page, as GitHub names them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text("utf-8"), re.MULTILINE)
    return [re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings]


def run_block(kind: str, code: str, folder: Path, server: str) -> str:
    """Run a block as a reader would, in ``folder`` and against ``server``; returns its stdout.

    ``python NAME`` writes the program to a file and does not run it. Raises ``AssertionError`` if
    the status is not 0.
    """
    code = code.replace("localhost:8000", server.removeprefix("http://"))
    code = code.replace("Figment()", f"Figment({server!r})")
    if kind.startswith("python "):
        (folder / kind.removeprefix("python ")).write_text(code)
        return ""
    if kind == "python":
        # A file, so that worker processes of a data loader can import it.
        (folder / "program.py").write_text(code)
        code = ".venv/bin/python program.py"
    code = re.sub(r"\.venv(-cpu)?/bin/python", sys.executable, code)
    code = code.replace("-m service fetch", f"-m service fetch --server {server}")
    done = subprocess.run(
        ["bash", "-ec", code],
        cwd=folder,
        env=environment() | {"PYTHONPATH": str(ROOT), "HF_HOME": str(folder / "hf")},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, code + done.stdout + done.stderr
    return done.stdout
