from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
import torch
from safetensors.torch import load_file
from torch.distributed.elastic.utils.distributed import create_c10d_store

from tests.helpers.server import ROOT
from tests.helpers.small_runs import training, training_process
from training.config import TrainingConfig
from training.runs.run import Run

OPTIONS = (
    *("--data", "avatars:128", "--name", "tiny", "--width", "8", "--batch", "16", "--lr", "1e-3"),
    *("--attributes", "eyes,glasses", "--mirror", "--augment", "translation", "--device", "cpu"),
    *("--g-condition", "norm", "--minibatch", "stddev", "--precision", "float32"),
    *("--kimg", "0.048", "--hold-out", "0.4", "--ema-halflife-kimg", "0"),
)

LONG = ("--kimg", "0.64", "--snapshot-kimg", "0.32", "--tick-kimg", "0.016")


def train(
    folder: Path, *more: str, of_second: Sequence[object] = (), restarts: str = "0"
) -> tuple[set[int | None], str]:
    """Train on two processes, started as ``torchrun`` does; how they ended, and what they said.

    ``of_second``: options that the second has beside.
    """
    output = folder.with_suffix(".txt")
    store = create_c10d_store(True, "127.0.0.1", wait_for_workers=False)
    group = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(store.port)}
    processes = [
        training_process(
            output,
            *("train", *OPTIONS, *more, "--out", folder, *(of_second if rank == "1" else ())),
            environment=group
            | {"RANK": rank, "LOCAL_RANK": rank, "TORCHELASTIC_USE_AGENT_STORE": "True"}
            | {"TORCHELASTIC_MAX_RESTARTS": restarts},
        )
        for rank in ("0", "1")
    ]
    for process in processes:
        process.join(120)
    return {process.exitcode for process in processes}, output.read_text()


@contextmanager
def started_by_torchrun(
    folder: Path, *launch: str, options: Sequence[str]
) -> Iterator[subprocess.Popen[bytes]]:
    """``torchrun``, training into ``folder``; what it says goes to a file beside that."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", *launch]
    folder.parent.mkdir(exist_ok=True)
    with folder.with_suffix(".txt").open("wb") as said:
        running = subprocess.Popen(
            [*torchrun, "-m", "training", "train", *OPTIONS, *options, "--out", str(folder)],
            cwd=ROOT,
            env=os.environ | {"OMP_NUM_THREADS": "1", "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"},
            stdout=said,
            stderr=said,
        )
        try:
            yield running
        finally:
            running.terminate()
            running.wait(60)


def test_two_processes_train_what_one_does(tmp_path: Path) -> None:
    done = training("train", *OPTIONS, "--out", tmp_path / "1")
    assert done.exit_code == 0, done.stderr
    ended, said = train(tmp_path / "2")
    assert ended == {0}, said
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
    ended, said = train(tmp_path / "run", "--batch", "20")
    assert 0 not in ended
    assert "a batch of 20 cannot be split over 2 processes in groups of 4" in said
    assert not (tmp_path / "run").exists()


def test_a_run_that_came_to_a_bad_end_is_not_begun_again(tmp_path: Path) -> None:
    """As ``torchrun`` would, whose processes have all failed."""
    folder = tmp_path / "run"
    restarted = {"WORLD_SIZE": "1", "TORCHELASTIC_MAX_RESTARTS": "3"}
    for _ in range(2):
        said = tmp_path / "said.txt"
        said.unlink(missing_ok=True)
        more = ("--lr", "1e30", "--snapshot-kimg", "0.016", "--out", folder)
        process = training_process(said, "train", *OPTIONS, *more, environment=restarted)
        process.join(120)
        assert process.exitcode == 1
        assert "a loss or weight is NaN or infinite" in said.read_text()
    assert "timing a few steps" not in said.read_text()


def test_hosts_with_other_data_are_refused(tmp_path: Path) -> None:
    ended, said = train(tmp_path / "run", of_second=("--data", "avatars:256"))
    assert 0 not in ended
    assert "the data is not the same for all processes" in said
    assert not (tmp_path / "run").exists()


def test_a_host_that_is_further_on_is_not_forgotten(tmp_path: Path) -> None:
    done = training("train", *OPTIONS, "--out", tmp_path / "run")
    assert done.exit_code == 0, done.stderr
    (tmp_path / "run").rename(tmp_path / "second")
    ended, said = train(tmp_path / "run", of_second=("--out", tmp_path / "second"))
    assert 0 not in ended
    assert "a checkpoint on another host is further" in said


def test_restarts_that_could_not_work_are_refused(tmp_path: Path) -> None:
    ended, said = train(tmp_path / "run", restarts="3")
    assert 0 not in ended
    assert "start torchrun with TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1" in said


def test_a_signal_stops_all_processes_at_the_same_step(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    options = ["--kimg", "100", "--tick-kimg", "0.016"]
    with started_by_torchrun(folder, "--nproc-per-node", "2", options=options) as running:
        while not (folder / "log.jsonl").exists():
            assert running.poll() is None
            time.sleep(0.1)
        running.send_signal(signal.SIGTERM)
        running.wait(timeout=120)
    assert load_file(folder / "checkpoint.safetensors")
    assert TrainingConfig.model_validate_json((folder / "config.json").read_bytes()).kimg == 100


def test_hosts_share_nothing_and_a_killed_process_costs_a_snapshot_at_most(tmp_path: Path) -> None:
    """Two hosts of one process each. One is killed, and all start again from the checkpoint."""
    whole = tmp_path / "whole"
    assert train(whole, *LONG)[0] == {0}
    store = create_c10d_store(True, "127.0.0.1", wait_for_workers=False)
    port = str(store.port)
    del store
    launch = [
        *("--nnodes", "2", "--nproc-per-node", "1", "--max-restarts", "3"),
        *("--rdzv-backend", "c10d", "--rdzv-endpoint", f"127.0.0.1:{port}"),
    ]
    folders = [tmp_path / host / "run" for host in ("first", "second")]
    with (
        started_by_torchrun(folders[0], *launch, "--rdzv-conf=is_host=1", options=LONG) as first,
        started_by_torchrun(folders[1], *launch, "--rdzv-conf=is_host=0", options=LONG) as second,
    ):
        while not any((folder / "checkpoint.safetensors").exists() for folder in folders):
            assert first.poll() is second.poll() is None
            time.sleep(0.1)
        (victim,) = psutil.Process(second.pid).children()
        victim.kill()
        (folder,) = (folder for folder in folders if folder.exists())
        begun = (folder / "reals.png").stat().st_mtime_ns
        ended = [first.wait(timeout=240), second.wait(timeout=240)]
        assert ended == [0, 0], [each.with_suffix(".txt").read_text() for each in folders]
    assert (folder / "reals.png").stat().st_mtime_ns == begun, "it has begun anew"
    ours, undisturbed = (load_file(f / "checkpoint.safetensors") for f in (folder, whole))
    assert ours.keys() == undisturbed.keys()
    assert all(torch.equal(ours[name], undisturbed[name]) for name in ours)
    assert Run.open(folder).log.lines()[-1]["shown"] == 640


@pytest.fixture(autouse=True)
def _gloo() -> None:
    if not torch.distributed.is_gloo_available():
        pytest.skip("this PyTorch has no gloo: several processes cannot be tried on a CPU")
