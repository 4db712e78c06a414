from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.server import ROOT
from training.config import TrainingConfig
from training.run import Run

OPTIONS = (
    *("--data", "avatars:128", "--name", "tiny", "--width", "8", "--batch", "16", "--lr", "1e-3"),
    *("--attributes", "eyes,glasses", "--mirror", "--augment", "translation", "--device", "cpu"),
    *("--g-condition", "norm", "--minibatch", "stddev", "--precision", "float32"),
    *("--kimg", "0.048", "--hold-out", "0.4", "--ema-halflife-kimg", "0"),
)


def train(folder: Path, processes: int, *more: str) -> subprocess.Popen[str]:
    alone = [sys.executable]
    together = [*alone, "-m", "torch.distributed.run", "--nproc-per-node", str(processes)]
    command = [*(alone if processes == 1 else together), "-m", "training", "train", *OPTIONS]
    return subprocess.Popen(
        [*command, *more, "--out", str(folder)],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_two_processes_train_what_one_does(tmp_path: Path) -> None:
    for processes in (1, 2):
        running = train(tmp_path / str(processes), processes)
        _, said = running.communicate(timeout=120)
        assert running.returncode == 0, said
    one, two = (load_file(tmp_path / str(n) / "checkpoint.safetensors") for n in (1, 2))
    assert one.keys() == two.keys()
    # Three of Adam's steps, each of about the learning rate whichever way: where a gradient is zero
    # but for rounding, it may be another way.
    for name in one:
        if name.startswith(("generator.", "discriminator.")) and one[name].dim() > 1:
            far = (one[name].float() - two[name].float()).abs() > 0.1 * 1e-3
            assert far.float().mean() < 0.02, name
    # Measured and kept by the first of the processes alone.
    scores = [Run.open(tmp_path / str(n)).scores.lines() for n in (1, 2)]
    assert [line["shown"] for line in scores[1]] == [line["shown"] for line in scores[0]] == [48]
    assert torch.equal(one["generator.condition_strength"], torch.ones(()))


def test_a_batch_that_cannot_be_spread_is_refused(tmp_path: Path) -> None:
    running = train(tmp_path / "run", 2, "--batch", "20")
    _, said = running.communicate(timeout=120)
    assert running.returncode != 0
    assert "a batch of 20 cannot be spread over 2 processes in groups of 4" in said
    assert not (tmp_path / "run").exists()


def test_a_signal_stops_all_processes_at_the_same_step(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    running = train(folder, 2, "--kimg", "100", "--tick-kimg", "0.016")
    while not (folder / "log.jsonl").exists():
        assert running.poll() is None
        time.sleep(0.1)
    running.send_signal(signal.SIGTERM)
    running.communicate(timeout=120)
    assert load_file(folder / "checkpoint.safetensors")
    assert TrainingConfig.model_validate_json((folder / "config.json").read_bytes()).kimg == 100


@pytest.fixture(autouse=True)
def _gloo() -> None:
    if not torch.distributed.is_gloo_available():
        pytest.skip("this PyTorch has no gloo: several processes cannot be tried on a CPU")
