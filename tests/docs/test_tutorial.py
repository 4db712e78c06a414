"""Commands and programs of the tutorial run, in order, as the page shows them."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from tests.helpers.documents import DOCS, blocks, run_block
from tests.helpers.server import Server

BLOCKS = blocks(DOCS / "tutorial.md", "sh", "python", "python train.py")


@pytest.mark.server
@pytest.mark.slow
def test_tutorial(server: Server, tmp_path: Path) -> None:
    outputs = [run_block(kind, code, tmp_path, server.url) for kind, code in BLOCKS]
    assert len(BLOCKS) == 6
    assert '"ready"' in outputs[0]
    assert "1,000 images of digits" in outputs[3]
    assert "accuracy" in outputs[-1]
    with Image.open(tmp_path / "seven.png") as image:
        assert image.size == (28, 28)
