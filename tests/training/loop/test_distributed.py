from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
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
from tests.helpers.waiting import wait_until
from tests.training.conftest import pack
from training.config import TrainingConfig
from training.data import Dataset
from training.runs.run import Run

pytestmark = pytest.mark.slow

OPTIONS = (
    *("--name", "tiny", "--width", "8", "--batch", "16", "--lr", "1e-3"),
    *("--attributes", "eyes,glasses", "--mirror", "--augment", "translation", "--device", "cpu"),
    *("--g-condition", "norm", "--minibatch", "stddev", "--precision", "float32"),
    *("--kimg", "0.048", "--hold-out", "0.4", "--ema-halflife-kimg", "0"),
)

LONG = ("--kimg", "0.64", "--snapshot-kimg", "0.32", "--tick-kimg", "0.032")


def train(
    folder: Path,
    source: str,
    *more: str,
    second_options: Sequence[object] = (),
    restarts: str = "0",
) -> tuple[set[int | None], str]:
    """Train on ``source`` with two processes, started as by ``torchrun``.

    Returns their exit codes and output.
    ``second_options`` are additional options of the second process.
    """
    output = folder.with_suffix(".txt")
    store = create_c10d_store(True, "127.0.0.1", wait_for_workers=False)
    group = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(store.port)}
    processes = [
        training_process(
            output,
            *("train", *OPTIONS, "--data", source, *more, "--out", folder),
            *(second_options if rank == "1" else ()),
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
    folder: Path, source: str, *launch: str, options: Sequence[str]
) -> Iterator[subprocess.Popen[bytes]]:
    """Run ``torchrun``, training into ``folder``; its output goes to a text file beside it."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", *launch]
    command = ["-m", "training", "train", *OPTIONS, "--data", source, *options]
    folder.parent.mkdir(exist_ok=True)
    with folder.with_suffix(".txt").open("wb") as said:
        running = subprocess.Popen(
            [*torchrun, *command, "--out", str(folder)],
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


@pytest.fixture(scope="module")
def alone(source: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run of one process."""
    folder = tmp_path_factory.mktemp("alone") / "run"
    done = training("train", *OPTIONS, "--data", source, "--out", folder)
    assert done.exit_code == 0, done.stderr
    return folder


def test_two_processes_train_the_same_model_as_one(
    alone: Path, source: str, tmp_path: Path
) -> None:
    ended, said = train(tmp_path / "run", source)
    assert ended == {0}, said
    folders = (alone, tmp_path / "run")
    one, two = (load_file(folder / "checkpoint.safetensors") for folder in folders)
    assert one.keys() == two.keys()
    # Three steps of Adam, each of about the learning rate: where a gradient is zero but for
    # rounding, its sign may differ.
    for name in one:
        if name.startswith(("generator.", "discriminator.")) and one[name].dim() > 1:
            far = (one[name].float() - two[name].float()).abs() > 0.1 * 1e-3
            assert far.float().mean() < 0.02, name
    # Scores are written by rank 0 alone.
    scores = [Run.open(folder).scores.lines() for folder in folders]
    assert [line["shown"] for line in scores[1]] == [line["shown"] for line in scores[0]] == [48]
    assert torch.equal(one["generator.condition_strength"], torch.ones(()))


def test_batch_that_cannot_be_split_is_rejected(source: str, tmp_path: Path) -> None:
    ended, said = train(tmp_path / "run", source, "--batch", "20")
    assert 0 not in ended
    assert "a batch of 20 cannot be split over 2 processes in groups of 4" in said
    assert not (tmp_path / "run").exists()


def test_failed_run_is_not_restarted(source: str, tmp_path: Path) -> None:
    """Restarted as by ``torchrun``, all of whose processes have failed."""
    folder = tmp_path / "run"
    restarted = {"WORLD_SIZE": "1", "TORCHELASTIC_MAX_RESTARTS": "3"}
    for _ in range(2):
        said = tmp_path / "said.txt"
        said.unlink(missing_ok=True)
        more = ("--data", source, "--lr", "1e30", "--snapshot-kimg", "0.016", "--out", folder)
        process = training_process(said, "train", *OPTIONS, *more, environment=restarted)
        process.join(120)
        assert process.exitcode == 1
        assert "a loss or weight is NaN or infinite" in said.read_text()
    assert "timing a few steps" not in said.read_text()


def test_hosts_with_different_data_are_rejected(
    source: str, portraits: Dataset, tmp_path: Path
) -> None:
    other = tmp_path / "other.zip"
    pack(other, portraits, 399)
    ended, said = train(tmp_path / "run", source, second_options=("--data", other))
    assert 0 not in ended
    assert "the data is not the same for all processes" in said
    assert not (tmp_path / "run").exists()


def test_checkpoint_further_on_another_host_is_not_overwritten(
    alone: Path, source: str, tmp_path: Path
) -> None:
    shutil.copytree(alone, tmp_path / "second")
    ended, said = train(tmp_path / "run", source, second_options=("--out", tmp_path / "second"))
    assert 0 not in ended
    assert "a checkpoint on another host is further" in said


def test_restarts_without_the_needed_setting_are_rejected(source: str, tmp_path: Path) -> None:
    ended, said = train(tmp_path / "run", source, restarts="3")
    assert 0 not in ended
    assert "start torchrun with TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1" in said


def test_signal_stops_all_processes_at_the_same_step(source: str, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    options = ["--kimg", "100", "--tick-kimg", "0.016"]
    with started_by_torchrun(folder, source, "--nproc-per-node", "2", options=options) as running:
        wait_until(lambda: (folder / "log.jsonl").exists() or running.poll() is not None, 120)
        assert running.poll() is None
        running.send_signal(signal.SIGTERM)
        running.wait(timeout=120)
    assert load_file(folder / "checkpoint.safetensors")
    assert TrainingConfig.model_validate_json((folder / "config.json").read_bytes()).kimg == 100


def test_run_on_two_hosts_resumes_after_a_killed_process(source: str, tmp_path: Path) -> None:
    """Two hosts without shared storage; all processes restart from the checkpoint."""
    whole = tmp_path / "whole"
    assert train(whole, source, *LONG)[0] == {0}
    store = create_c10d_store(True, "127.0.0.1", wait_for_workers=False)
    port = str(store.port)
    del store
    launch = [
        *("--nnodes", "2", "--nproc-per-node", "1", "--max-restarts", "3"),
        *("--rdzv-backend", "c10d", "--rdzv-endpoint", f"127.0.0.1:{port}"),
    ]
    folders = [tmp_path / name / "run" for name in ("first", "second")]
    host, guest = (f"--rdzv-conf=is_host={is_host},keep_alive_interval=1" for is_host in (1, 0))
    with (
        started_by_torchrun(folders[0], source, *launch, host, options=LONG) as first,
        started_by_torchrun(folders[1], source, *launch, guest, options=LONG) as second,
    ):
        checkpoints = [folder / "checkpoint.safetensors" for folder in folders]
        wait_until(lambda: any(path.exists() for path in checkpoints), 240)
        assert first.poll() is second.poll() is None
        (victim,) = psutil.Process(second.pid).children()
        victim.kill()
        (folder,) = (folder for folder in folders if folder.exists())
        begun = (folder / "reals.png").stat().st_mtime_ns
        ended = [first.wait(timeout=240), second.wait(timeout=240)]
        assert ended == [0, 0], [each.with_suffix(".txt").read_text() for each in folders]
    assert (folder / "reals.png").stat().st_mtime_ns == begun, "the run was not resumed"
    ours, undisturbed = (load_file(f / "checkpoint.safetensors") for f in (folder, whole))
    assert ours.keys() == undisturbed.keys()
    assert all(torch.equal(ours[name], undisturbed[name]) for name in ours)
    assert Run.open(folder).log.lines()[-1]["shown"] == 640


@pytest.fixture(autouse=True)
def _gloo() -> None:
    if not torch.distributed.is_gloo_available():
        pytest.skip("this PyTorch has no gloo: several processes cannot be tested on a CPU")
