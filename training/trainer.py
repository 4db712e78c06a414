"""Both networks, their optimizers and one step of adversarial training."""

from __future__ import annotations

import math
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

STATISTICS = ("d_loss", "g_loss", "d_real", "d_fake", "d_mismatched")
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
            network.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.ema = ema.start(self.generator)
        self.g_adam = self._adam(self.generator)
        self.d_adam = self._adam(self.discriminator)
        self.shown = 0

    def _adam(self, network: torch.nn.Module) -> torch.optim.Adam:
        betas = (self.config.beta1, self.config.beta2)
        return torch.optim.Adam(network.parameters(), self.config.lr, betas, fused=True)

    def save(self, path: Path) -> None:
        checkpoint.write(path, self.shown, self._networks(), self._optimizers())

    def load(self, path: Path) -> int:
        """Become what ``save`` saved; returns the images shown. Raises ``CheckpointError``."""
        self.shown = checkpoint.read(path, self._networks(), self._optimizers())
        return self.shown

    def _networks(self) -> dict[str, torch.nn.Module]:
        return {"generator": self.generator, "discriminator": self.discriminator, "ema": self.ema}

    def _optimizers(self) -> dict[str, torch.optim.Optimizer]:
        return {"g_adam": self.g_adam, "d_adam": self.d_adam}

    def step(self, images: Tensor, labels: Tensor) -> Tensor:
        """Show the next batch of the data, uint8 ``images [M, H, W, C]`` and ``labels [M, A]``.

        Returns the ``STATISTICS`` of the step, still on the device.
        """
        # Draw the batch.
        chosen = batch_indices(
            self.config.seed, len(images), self.shown, self.config.batch, self.device
        )
        right = labels[chosen]
        condition = condition_rows(right, self.sizes)
        real = self._mirrored(to_networks(images[chosen]))
        fake = self.generator(self.latents("latent", self.config.batch), condition)

        # Update the discriminator.
        self._set_learning_rate(self.d_adam)
        features = self.discriminator.features(real)
        real_logits = self.discriminator.judge(features, condition)
        fake_logits = self.discriminator(fake.detach(), condition)
        mismatched_logits = None
        if self.sizes:
            wrong = mismatch(right, self.sizes, self._stream("mismatch"))
            mismatched_logits = self.discriminator.judge(
                features, condition_rows(wrong, self.sizes)
            )
        d_loss = discriminator_loss(real_logits, fake_logits, mismatched_logits)
        self.d_adam.zero_grad()
        (d_loss + self._label_loss(features, right)).backward()
        self.d_adam.step()

        # Update the generator, through a discriminator that takes no gradients of its own.
        self._set_learning_rate(self.g_adam)
        self.discriminator.requires_grad_(False)
        features = self.discriminator.features(fake)
        g_loss = generator_loss(self.discriminator.judge(features, condition))
        self.g_adam.zero_grad()
        (g_loss + self._label_loss(features, right)).backward()
        self.g_adam.step()
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
        nothing = torch.full_like(real_logits, math.nan)
        logits = (
            real_logits,
            fake_logits,
            nothing if mismatched_logits is None else mismatched_logits,
        )
        return torch.stack([d_loss, g_loss, *(x.sigmoid().mean() for x in logits)]).detach()

    def settle(self, labels: Tensor) -> None:
        """Fit the average's batch-norm statistics to latents and the data's labels ``[M, A]``."""
        batch = self.config.batch
        latents = self.latents("settle", SETTLING_BATCHES * batch).split(batch)
        chosen = torch.randint(
            len(labels),
            (SETTLING_BATCHES * batch,),
            generator=self._stream("settle-labels"),
            device=self.device,
        )
        conditions = condition_rows(labels[chosen], self.sizes).split(batch)
        ema.settle(self.ema, zip(latents, conditions, strict=True))

    def latents(self, purpose: str, count: int) -> Tensor:
        """Standard normal latents ``[count, Z]`` of this position of the run."""
        return torch.randn(
            count, self.config.latent_size, generator=self._stream(purpose), device=self.device
        )

    def _label_loss(self, features: Tensor, labels: Tensor) -> Tensor | float:
        if not self.sizes or self.config.label_weight == 0:
            return 0.0
        logits = self.discriminator.read_labels(features)
        return self.config.label_weight * label_loss(logits, labels, self.sizes)

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
