"""Training speed compared with the loop of PyTorch's DCGAN tutorial.

    python -m benchmarks.train [--data DATA]

Needs PyTorch; takes about four minutes on two cores. The same network (unconditional, 64 channels
at half the image's size), the same images, batches of 128, no labels. Each loop runs in a process
of its own, alternately; the ratio compares their best rounds of one run.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import click
import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from training.config import TrainingConfig
from training.data import load
from training.loop.trainer import Trainer
from training.runs.run import DatasetDescription

BATCH = 128
"""Batch size of the tutorial."""
WARM_UP_STEPS = 3
TUTORIAL_IMAGES = 2560
"""Images in the tutorial's folder: twenty batches."""
LOOPS = {
    "tutorial": [],
    "figment, float32": ["--precision", "float32"],
    "figment": ["--precision", "auto"],
}
"""Options of this command by the name of the training loop."""


def throughput(step: Callable[[], None], steps: int, device: torch.device) -> float:
    """Images per second over ``steps`` steps, after a warm-up."""
    for _ in range(WARM_UP_STEPS):
        step()
    synchronize(device)
    started = time.perf_counter()
    for _ in range(steps):
        step()
    synchronize(device)
    return steps * BATCH / (time.perf_counter() - started)


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def tutorial_throughput(folder: Path, steps: int) -> float:
    """Images per second of the tutorial's loop, including data.

    A DataLoader of two workers, BCELoss on sigmoids, and its readings of losses in every step, as
    in https://docs.pytorch.org/tutorials/beginner/dcgan_faces_tutorial.html.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    loader = torch.utils.data.DataLoader(
        TutorialImages(folder), batch_size=BATCH, shuffle=True, num_workers=2, drop_last=True
    )
    generator, discriminator = tutorial_networks()
    generator.to(device)
    discriminator.to(device)
    criterion = nn.BCELoss()
    g_adam = torch.optim.Adam(generator.parameters(), lr=2e-4, betas=(0.5, 0.999))
    d_adam = torch.optim.Adam(discriminator.parameters(), lr=2e-4, betas=(0.5, 0.999))
    batches = iter(loader)

    def step() -> None:
        nonlocal batches
        try:
            batch, _ = next(batches)
        except StopIteration:
            batches = iter(loader)
            batch, _ = next(batches)
        real = batch.to(device)
        label = torch.full((BATCH,), 1.0, device=device)
        discriminator.zero_grad()
        output = discriminator(real).view(-1)
        d_loss_real = criterion(output, label)
        d_loss_real.backward()
        output.mean().item()
        fake = generator(torch.randn(BATCH, 100, 1, 1, device=device))
        label.fill_(0)
        output = discriminator(fake.detach()).view(-1)
        d_loss_fake = criterion(output, label)
        d_loss_fake.backward()
        output.mean().item()
        d_adam.step()
        generator.zero_grad()
        label.fill_(1)
        output = discriminator(fake).view(-1)
        g_loss = criterion(output, label)
        g_loss.backward()
        output.mean().item()
        g_adam.step()
        (d_loss_real + d_loss_fake).item()
        g_loss.item()

    return throughput(step, steps, device)


class TutorialImages(torch.utils.data.Dataset[tuple[Tensor, int]]):
    """ImageFolder and transforms of the tutorial, without the two that do not change 64x64."""

    def __init__(self, folder: Path) -> None:
        self.paths = sorted(folder.glob("*/*.png"))

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        with Image.open(self.paths[index]) as image:
            pixels = torch.from_numpy(np.array(image.convert("RGB")))
        scaled = pixels.permute(2, 0, 1).contiguous().float() / 255  # ToTensor
        return (scaled - 0.5) / 0.5, 0  # Normalize


def tutorial_networks() -> tuple[nn.Module, nn.Module]:
    """Generator and discriminator of the tutorial: ngf = ndf = 64, nz = 100."""
    up: list[nn.Module] = []
    for inputs, outputs in ((100, 512), (512, 256), (256, 128), (128, 64)):
        stride, padding = (1, 0) if not up else (2, 1)
        convolution = nn.ConvTranspose2d(inputs, outputs, 4, stride, padding, bias=False)
        up += [convolution, nn.BatchNorm2d(outputs), nn.ReLU(True)]
    up += [nn.ConvTranspose2d(64, 3, 4, 2, 1, bias=False), nn.Tanh()]
    down: list[nn.Module] = [nn.Conv2d(3, 64, 4, 2, 1, bias=False), nn.LeakyReLU(0.2, True)]
    for inputs, outputs in ((64, 128), (128, 256), (256, 512)):
        down += [
            nn.Conv2d(inputs, outputs, 4, 2, 1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.LeakyReLU(0.2, True),
        ]
    down += [nn.Conv2d(512, 1, 4, 1, 0, bias=False), nn.Sigmoid()]
    return nn.Sequential(*up), nn.Sequential(*down)


def figment_throughput(data: str, steps: int, precision: str) -> float:
    """Images per second of ``Trainer.step``, including data."""
    dataset = load(data, attributes=())
    config = TrainingConfig.model_validate(
        {"data": data, "name": "bench", "width": 64, "batch": BATCH, "precision": precision}
    )
    trainer = Trainer(config, DatasetDescription.of(dataset, "unknown"))
    images = torch.from_numpy(dataset.images).to(trainer.device)
    labels = torch.from_numpy(dataset.labels).to(trainer.device)

    def step() -> None:
        trainer.step(images, labels)

    return throughput(step, steps, trainer.device)


@click.command()
@click.option("--data", default="avatars:2000", show_default=True, help="Dataset, as for training.")
@click.option("--rounds", default=3, show_default=True)
@click.option("--steps", default=10, show_default=True, help="In each round, after 3 to warm up.")
@click.option("--loop", type=click.Choice(list(LOOPS)), hidden=True)
@click.option("--precision", default="auto", hidden=True)
@click.option("--folder", type=click.Path(path_type=Path), hidden=True)
def main(
    data: str, rounds: int, steps: int, loop: str | None, precision: str, folder: Path | None
) -> None:
    """Compare the speed of training with the tutorial's loop."""
    if loop is not None:
        assert folder is not None
        if loop == "tutorial":
            print(tutorial_throughput(folder, steps))
        else:
            print(figment_throughput(data, steps, precision))
        return
    with tempfile.TemporaryDirectory() as temporary:
        _write_images(data, Path(temporary) / "faces")
        rates: dict[str, list[float]] = {name: [] for name in LOOPS}
        for _ in range(rounds):
            for name, options in LOOPS.items():
                command = [sys.executable, "-m", "benchmarks.train", "--loop", name, *options]
                settings = ["--data", data, "--steps", str(steps), "--folder", temporary]
                process = subprocess.run(
                    [*command, *settings], check=True, capture_output=True, text=True
                )
                rates[name].append(float(process.stdout))
                print(f"{name:16} {rates[name][-1]:8.1f} images/s", flush=True)
    best = {name: max(rounds_of_one) for name, rounds_of_one in rates.items()}
    ratios = {name: round(rate / best["tutorial"], 2) for name, rate in best.items()}
    print(json.dumps({"torch": torch.__version__, "device": _device(), "ratios": ratios}))


def _write_images(data: str, folder: Path) -> None:
    """Write the folder of PNG files for the tutorial's loop."""
    folder.mkdir()
    for index, image in enumerate(load(data, attributes=()).images[:TUTORIAL_IMAGES]):
        Image.fromarray(image).save(folder / f"{index:05d}.png")


def _device() -> str:
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return f"CPU, {torch.get_num_threads()} threads"


if __name__ == "__main__":
    main()
