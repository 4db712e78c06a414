"""Corrupted model files: each is rejected with a reason, or can be served."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from service.inference.model import Model
from service.models.sandbox import ModelSandbox
from tests.conftest import EXAMPLES
from tests.helpers import onnx_files
from tests.helpers.rejected_models import SMALL, load
from tests.helpers.server import MODELS

pytestmark = pytest.mark.slow

SHIPPED = MODELS / "digits" / "2" / "model.onnx"


Corruption = Callable[[np.random.Generator, bytes], bytes]


def flip_bits(random: np.random.Generator, content: bytes) -> bytes:
    corrupt = np.frombuffer(content, np.uint8).copy()
    for place in random.integers(len(content), size=random.integers(1, 9)):
        corrupt[place] ^= 1 << random.integers(8)
    return corrupt.tobytes()


def flip_bits_of_structure(random: np.random.Generator, content: bytes) -> bytes:
    """Flip bits at the end, where exported files have their graph and manifest."""
    cut = max(len(content) - 4000, 0)
    return content[:cut] + flip_bits(random, content[cut:])


def truncate(random: np.random.Generator, content: bytes) -> bytes:
    return content[: random.integers(len(content))]


def cut_out(random: np.random.Generator, content: bytes) -> bytes:
    first, last = sorted(random.integers(len(content) + 1, size=2))
    return content[:first] + content[last:]


def swap(random: np.random.Generator, content: bytes) -> bytes:
    corrupt = bytearray(content)
    one, other = random.integers(len(content), size=2)
    corrupt[one], corrupt[other] = corrupt[other], corrupt[one]
    return bytes(corrupt)


def overwrite(random: np.random.Generator, content: bytes) -> bytes:
    first = random.integers(len(content))
    some = random.bytes(int(random.integers(1, 65)))
    return (content[:first] + some + content[first + len(some) :])[: len(content)]


CORRUPTIONS = (flip_bits, flip_bits_of_structure, truncate, cut_out, swap, overwrite)


def corrupted(content: bytes, count: int, seed: int) -> Iterator[bytes]:
    random = np.random.default_rng(seed)
    for number in range(count):
        yield CORRUPTIONS[number % len(CORRUPTIONS)](random, content)


def test_corrupted_files_are_rejected_or_can_be_served(tmp_path: Path) -> None:
    count = 30 * EXAMPLES
    whole = onnx_files.model(SMALL).SerializeToString()
    for number, content in enumerate(corrupted(whole, count, seed=1), start=1):
        onnx_files.put(tmp_path, "tiny", number, content)
    onnx_files.put(tmp_path, "tiny", count + 1, whole)
    loaded = load(tmp_path, ModelSandbox(seconds=20))
    served = loaded.models["tiny"]
    assert count + 1 in served
    assert len(served) + len(loaded.refused) == count + 1
    assert len(loaded.refused) > count / 2
    for refusal in loaded.refused:
        assert refusal.reason
        assert refusal.reason.isprintable(), refusal
    for model in served.values():
        check_served(model)


def check_served(model: Model) -> None:
    images = model.generate(
        np.zeros((3, model.manifest.latent_size), dtype=np.float32),
        np.zeros((3, model.manifest.condition_size), dtype=np.float32),
    )
    assert images.dtype == np.uint8
    assert images.shape == (3, *model.manifest.image_shape)


def test_corruptions_of_a_shipped_model_have_a_result_each(tmp_path: Path) -> None:
    for number, content in enumerate(corrupted(SHIPPED.read_bytes(), 48, seed=0), start=1):
        onnx_files.put(tmp_path, "digits", number, content)
    paths = sorted(tmp_path.glob("*/*/*"))
    results = list(ModelSandbox(seconds=20).check(paths))
    assert [result.path for result in results] == paths
    for result in results:
        assert (result.sha256 is None) == bool(result.reason)
        assert result.reason.isprintable(), result
    assert 20 < sum(result.sha256 is None for result in results) < 48
