"""Both networks, their optimizers and one step of adversarial training."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from training import checkpoint, ema
from training.conditioning import condition_rows, mismatch
from training.config import TrainingConfig
from training.errors import RunError
from training.losses import discriminator_loss, generator_loss, label_loss
from training.networks import Discriminator, Generator
from training.pixels import to_networks
from training.randomness import batch_indices, stream
from training.run import DatasetDescription

SETTLING_BATCHES = 64


def choose_device(name: str) -> torch.device:
    """``auto`` is CUDA where there is one. Raises ``RunError`` where ``cuda`` cannot be had."""
    if name == "cuda" and not torch.cuda.is_available():
        raise RunError("device is cuda, but PyTorch finds no CUDA device here")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


class Trainer:
    """The state of a run. It is a function of the configuration, the data and ``shown``."""

    def __init__(self, config: TrainingConfig, dataset: DatasetDescription) -> None:
        self.config = config
        self.device = choose_device(config.device)
        self.sizes = dataset.attribute_sizes
        self.frequencies = [
            torch.tensor(attribute.frequencies, device=self.device)
            for attribute in dataset.attributes
        ]
        with torch.random.fork_rng():
            torch.manual_seed(config.seed)
            self.generator = Generator(
                latent_size=config.latent_size,
                condition_size=sum(self.sizes),
                image_shape=dataset.image_shape,
                width=config.width,
            )
            self.discriminator = Discriminator(
                condition_size=sum(self.sizes),
                image_shape=dataset.image_shape,
                width=config.width,
            )
        for network in (self.generator, self.discriminator):
            # PyTorch's types leave out the overload that takes a device and a memory format.
            network.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.ema = ema.start(self.generator)
        self.g_adam = self._adam(self.generator)
        self.d_adam = self._adam(self.discriminator)
        self.shown = 0

    def _adam(self, network: torch.nn.Module) -> torch.optim.Adam:
        betas = (self.config.beta1, self.config.beta2)
        return torch.optim.Adam(network.parameters(), self.config.lr, betas, fused=True)

    def save(self, path: Path) -> None:
        tensors = checkpoint.collect(self._networks(), self._optimizers())
        checkpoint.write(path, self.shown, tensors)

    def load(self, path: Path) -> None:
        """Become what ``save`` saved. Raises ``CheckpointError``."""
        self.shown = checkpoint.read(path, self._networks(), self._optimizers())

    def _networks(self) -> dict[str, torch.nn.Module]:
        return {"generator": self.generator, "discriminator": self.discriminator, "ema": self.ema}

    def _optimizers(self) -> dict[str, torch.optim.Optimizer]:
        return {"g_adam": self.g_adam, "d_adam": self.d_adam}

    def step(self, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Show the next batch of the data, uint8 ``images [M, H, W, C]`` and ``labels [M, A]``.

        Returns the losses, and how real the discriminator took images to be, still on the device.
        """
        # Draw the batch.
        chosen = batch_indices(
            self.config.seed, len(images), self.shown, self.config.batch, self.device
        )
        right = labels[chosen]
        condition = condition_rows(right, self.sizes)
        real = self._mirrored(to_networks(images[chosen]))
        fake = self.generator(self._latents("latent"), condition)

        # Update the discriminator.
        self._set_learning_rate(self.d_adam)
        features = self.discriminator.features(real)
        logits = {
            "d_real": self.discriminator.judge(features, condition),
            "d_fake": self.discriminator(fake.detach(), condition),
        }
        if self.sizes:
            wrong = mismatch(right, self.sizes, self._stream("mismatch"))
            wrong_condition = condition_rows(wrong, self.sizes)
            logits["d_mismatched"] = self.discriminator.judge(features, wrong_condition)
        d_loss = discriminator_loss(logits["d_real"], logits["d_fake"], logits.get("d_mismatched"))
        statistics = {"d_loss": d_loss} | self._label_loss("d_label_loss", features, right)
        self._update(self.d_adam, statistics)
        for name, values in logits.items():
            statistics[name] = values.sigmoid().mean()

        # Update the generator, through a discriminator that takes no gradients of its own.
        self._set_learning_rate(self.g_adam)
        self.discriminator.requires_grad_(False)
        features = self.discriminator.features(fake)
        g_loss = generator_loss(self.discriminator.judge(features, condition))
        losses = {"g_loss": g_loss} | self._label_loss("g_label_loss", features, right)
        self._update(self.g_adam, losses)
        self.discriminator.requires_grad_(True)

        # Update the average.
        self.shown += self.config.batch
        ema.update(
            self.ema,
            self.generator,
            shown=self.shown,
            batch=self.config.batch,
            halflife=self.config.ema_halflife_kimg * 1000,
        )
        return {name: value.detach() for name, value in (statistics | losses).items()}

    def settle(self) -> None:
        """Fit the average's batch-norm statistics to latents and labels as the service draws them.

        That is, each attribute by its frequencies, apart from the others. A function of the
        configuration and of ``shown``, so it can be done at any time after.
        """
        generator = self._stream("settle-labels")
        conditions = []
        for _ in range(SETTLING_BATCHES):
            columns = [
                torch.multinomial(shares, self.config.batch, replacement=True, generator=generator)
                for shares in self.frequencies
            ]
            labels = torch.stack(columns, dim=1) if columns else self._no_labels()
            conditions.append(condition_rows(labels, self.sizes))
        latents = self._latents("settle", SETTLING_BATCHES).split(self.config.batch)
        ema.settle(self.ema, zip(latents, conditions, strict=True))

    def is_finite(self) -> bool:
        """Whether all that ``save`` would save are numbers."""
        tensors = checkpoint.collect(self._networks(), self._optimizers())
        return all(bool(tensor.isfinite().all()) for tensor in tensors.values())

    def _latents(self, purpose: str, batches: int = 1) -> Tensor:
        return torch.randn(
            batches * self.config.batch,
            self.config.latent_size,
            generator=self._stream(purpose),
            device=self.device,
        )

    def _no_labels(self) -> Tensor:
        return torch.zeros(self.config.batch, 0, dtype=torch.long, device=self.device)

    def _update(self, optimizer: torch.optim.Optimizer, losses: Mapping[str, Tensor]) -> None:
        optimizer.zero_grad()
        torch.stack(list(losses.values())).sum().backward()
        optimizer.step()

    def _label_loss(self, name: str, features: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Nothing where there are no labels or they have no weight."""
        if not self.sizes or self.config.label_weight == 0:
            return {}
        logits = self.discriminator.read_labels(features)
        return {name: self.config.label_weight * label_loss(logits, labels, self.sizes)}

    def _mirrored(self, images: Tensor) -> Tensor:
        if not self.config.mirror:
            return images
        coins = torch.rand(len(images), generator=self._stream("mirror"), device=self.device)
        return torch.where(coins[:, None, None, None] < 0.5, images.flip(3), images)

    def _set_learning_rate(self, optimizer: torch.optim.Optimizer) -> None:
        """Full for the share ``lr_hold`` of the run, then down to 0 along half a cosine."""
        hold, done = self.config.lr_hold, self.shown / (self.config.kimg * 1000)
        falling = 0.0 if done <= hold else min((done - hold) / (1 - hold), 1)
        for group in optimizer.param_groups:
            group["lr"] = self.config.lr * (1 + math.cos(math.pi * falling)) / 2

    def _stream(self, purpose: str) -> torch.Generator:
        return stream(self.config.seed, purpose, self.shown, self.device)
