"""Networks, optimizers, and one step of adversarial training."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from training.config import MINIBATCH_GROUPS, TrainingConfig
from training.core import distributed
from training.core.adam import Adam
from training.core.device import choose_device, choose_precision, convolutions_in
from training.core.pixels import to_networks
from training.core.randomness import batch_indices, scoped_seed, stream
from training.errors import RunError
from training.networks import ema, regularisers
from training.networks.adaptive import AdaptiveProbability
from training.networks.augment import DRAWS, augment, mirror
from training.networks.conditioning import condition_rows, mismatch
from training.networks.lecam import LeCam
from training.networks.losses import LOSSES, label_loss, matching_aware
from training.networks.networks import STYLES, Discriminator, Generator
from training.networks.norms import Chain, synchronise_batch_norm
from training.runs import checkpoint
from training.runs.run import DatasetDescription

RECALIBRATION_BATCHES = 64


@dataclass(frozen=True)
class Batch:
    """Data of one step on one process."""

    real: Tensor
    """``[N, channels, H, W]`` in [-1, 1], mirrored and augmented."""
    plain: Tensor
    """The same before augmentation."""
    labels: Tensor
    """Value indices ``[N, A]``."""
    known: Tensor
    """bool ``[N, A]``; false for labels hidden by ``label_dropout``."""
    condition: Tensor
    """One-hot rows ``[N, C]``."""
    wrong_condition: Tensor | None
    """``[N, C]`` with one wrong attribute per row; None without such a loss."""


class Trainer:
    """State of a run: a function of the configuration, the data and ``shown``, in images."""

    def __init__(self, config: TrainingConfig, dataset: DatasetDescription) -> None:
        """Raises ``RunError`` if the device is missing or the batch cannot be split."""
        self.config = config
        self.device = choose_device(config.device)
        self.precision = choose_precision(config.precision, self.device)
        self.sizes = dataset.attribute_sizes
        self.loss = LOSSES[config.loss]
        self.frequencies = [
            torch.tensor(attribute.frequencies, device=self.device)
            for attribute in dataset.attributes
        ]
        with scoped_seed(config.seed, "networks", 0, self.device):
            sizes: dict[str, Any] = {
                "condition_size": sum(self.sizes),
                "image_shape": dataset.image_shape,
            }
            self.generator = Generator(config, **sizes)
            self.discriminator = Discriminator(config, **sizes)
        for network in (self.generator, self.discriminator):
            # PyTorch's types lack the overload with a device and a memory format.
            network.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.ema = ema.copy_of(self.generator)
        self.averages = {sigma: ema.copy_of(self.generator) for sigma in config.ema_sigmas}
        self.lecam = LeCam().to(self.device)
        self.adaptive: AdaptiveProbability | None = None
        if config.augment_target is not None:
            adaptive = AdaptiveProbability(config.augment_target, config.augment_probability)
            self.adaptive = adaptive.to(self.device)
        self.chain = [part for part in self.discriminator.modules() if isinstance(part, Chain)]
        if distributed.world_size() > 1:
            self._check_and_synchronise()
        self.g_adam = self._adam(self.generator, config.lr)
        self.d_adam = self._adam(self.discriminator, config.d_lr or config.lr)
        compiles = self.device.type == "cuda" if config.compile is None else config.compile
        self._generate = torch.compile(self.generator) if compiles else self.generator
        # A compiled network ignores `parametrize.cached`, which limits spectral norm to one power
        # iteration per update.
        compiles = compiles and config.d_norm not in ("spectral", "chain")
        self._judge = torch.compile(self.discriminator) if compiles else self.discriminator
        self.shown = 0

    def save(self, path: Path) -> None:
        """Write the state as a checkpoint."""
        tensors = checkpoint.collect(self._networks(), self._optimizers())
        checkpoint.write(path, self.shown, tensors)

    def load(self, path: Path) -> None:
        """Restore the state from a checkpoint. Raises ``CheckpointError``."""
        self.shown = checkpoint.read(path, self._networks(), self._optimizers())

    def is_finite(self) -> bool:
        """True if no value of the state is NaN or infinite."""
        tensors = checkpoint.collect(self._networks(), self._optimizers())
        return all(bool(tensor.isfinite().all()) for tensor in tensors.values())

    def step(self, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Train on the next batch of uint8 ``images [M, H, W, C]`` with ``labels [M, A]``.

        M is the size of the data. Returns losses and mean discriminator outputs as scalars that
        stay on the device. Collective.
        """
        # Draw the batch.
        self._schedule()
        batch = self._batch(images, labels)
        updates_generator = (self.shown // self.config.batch) % self.config.d_steps == 0
        with torch.set_grad_enabled(updates_generator), self._convolving():
            plain = self._generate(self._latents("latent"), batch.condition).float()
            fake = self._augmented("augment-fake", plain)

        # Update the discriminator.
        with self._chance("d-dropout"):
            statistics = self._update_discriminator(batch, fake.detach(), plain.detach())

        # Update the generator, through a frozen discriminator.
        if updates_generator:
            with self._chance("g-dropout"):
                statistics |= self._update_generator(batch, fake)

        # Update the average.
        self.shown += self.config.batch
        step, halflife = (self.shown, self.config.batch), self.config.ema_halflife_kimg * 1000
        ema.update(self.ema, self.generator, ema.exponential_beta(*step, halflife))
        for sigma, average in self.averages.items():
            ema.update(average, self.generator, ema.power_beta(*step, sigma))
        return {name: value.detach() for name, value in statistics.items()}

    def recalibrate_batch_norm(self) -> None:
        """Measure the batch-norm statistics of the averages, with inputs as the service draws them.

        Each attribute is drawn by its frequencies, independently of the others. A function of the
        configuration, the weights and ``shown``, so it can run at any time after the step.
        """
        generator = self._stream("settle-labels")
        count = self.config.batch * RECALIBRATION_BATCHES
        columns = [
            torch.multinomial(shares, count, replacement=True, generator=generator)
            for shares in self.frequencies
        ]
        no_labels = torch.zeros(count, 0, dtype=torch.long, device=self.device)
        labels = torch.stack(columns, dim=1) if columns else no_labels
        conditions = condition_rows(labels, self.sizes).split(self.config.batch)
        latents = torch.randn(
            count, self.config.latent_size, generator=self._stream("settle"), device=self.device
        )
        pairs = list(zip(latents.split(self.config.batch), conditions, strict=True))
        for average in (self.ema, *self.averages.values()):
            ema.recalibrate_batch_norm(average, pairs)

    def _batch(self, images: Tensor, labels: Tensor) -> Batch:
        """Draw the whole batch and return this process's share."""
        config = self.config
        chosen = batch_indices(config.seed, len(images), self.shown, config.batch, self.device)
        right = labels[chosen]
        draws = torch.rand(right.shape, generator=self._stream("dropout"), device=self.device)
        known = draws >= config.label_dropout
        wrong_condition = None
        if self.sizes and config.mismatched_weight:
            wrong, wrong_known = mismatch(right, known, self.sizes, self._stream("mismatch"))
            wrong_condition = distributed.share(condition_rows(wrong, self.sizes, wrong_known))
        plain = self._mirrored(to_networks(images[distributed.share(chosen)]))
        return Batch(
            real=self._augmented("augment-real", plain),
            plain=plain,
            labels=distributed.share(right),
            known=distributed.share(known),
            condition=distributed.share(condition_rows(right, self.sizes, known)),
            wrong_condition=wrong_condition,
        )

    def _update_discriminator(
        self, batch: Batch, fake: Tensor, plain_fake: Tensor
    ) -> dict[str, Tensor]:
        config = self.config
        conditions = [batch.condition]
        if batch.wrong_condition is not None:
            conditions.append(batch.wrong_condition)
        # One power iteration per update, however often the weights are read.
        with parametrize.cached(), self._convolving():
            logits, label_logits = self._judge(batch.real, *conditions)
            (fake_logits,), _ = self._judge(fake, batch.condition)
            real_logits, *mismatched = logits
            losses = self._inconsistency(batch, real_logits, plain_fake, fake_logits)
        weight = config.mismatched_weight * self._label_strength
        losses["d_loss"] = matching_aware(
            self.loss, real_logits, fake_logits, mismatched[0] if mismatched else None, weight
        )
        losses |= self._label_loss("d_label_loss", label_logits, batch)
        if config.lecam_weight:
            losses["lecam"] = config.lecam_weight * self.lecam(real_logits, fake_logits)
        if self.chain:
            losses["chain"] = torch.stack([layer.take_penalty() for layer in self.chain]).sum()
        if (self.shown // config.batch) % config.penalty_every == 0:
            losses |= self._penalties(batch, fake)
        self._update(self.discriminator, self.d_adam, losses)
        for layer in self.chain:
            layer.follow(real_logits)
        if self.adaptive is not None:
            self.adaptive.follow(real_logits, config.batch)
        statistics = losses | {
            "d_real": real_logits.sigmoid().mean(),
            "d_fake": fake_logits.sigmoid().mean(),
            "d_ahead": (real_logits > fake_logits).float().mean(),
        }
        if mismatched:
            statistics["d_mismatched"] = mismatched[0].sigmoid().mean()
        return statistics

    def _update_generator(self, batch: Batch, fake: Tensor) -> dict[str, Tensor]:
        with self._frozen_discriminator():
            with parametrize.cached(), self._convolving():
                (logits,), label_logits = self._judge(fake, batch.condition)
                real_logits = logits.detach()
                if self.loss.generator_reads_real:
                    with torch.no_grad():
                        (real_logits,), _ = self._judge(batch.real, batch.condition)
            losses = {"g_loss": self.loss.generator(real_logits, logits)}
            losses |= self._label_loss("g_label_loss", label_logits, batch)
            self._update(self.generator, self.g_adam, losses)
        return losses

    def _inconsistency(
        self, batch: Batch, real_logits: Tensor, plain_fake: Tensor, fake_logits: Tensor
    ) -> dict[str, Tensor]:
        """Weighted squared change of the logits by augmentation (balanced consistency).

        Zhao et al. 2020 (https://arxiv.org/abs/2002.04724), equation 3.
        """
        losses = {}
        for name, weight, images, logits in (
            ("d_consistency_real", self.config.consistency_real, batch.plain, real_logits),
            ("d_consistency_fake", self.config.consistency_fake, plain_fake, fake_logits),
        ):
            if weight:
                (plain_logits,), _ = self._judge(images, batch.condition)
                losses[name] = weight * (plain_logits - logits).square().mean()
        return losses

    def _penalties(self, batch: Batch, fake: Tensor) -> dict[str, Tensor]:
        config = self.config

        def judge(images: Tensor) -> Tensor:
            (logits,), _ = self.discriminator(images, batch.condition)
            return logits

        penalties = {}
        self.discriminator.eval()  # no power iteration of spectral norm
        if config.r1_gamma:
            penalties["r1"] = config.r1_gamma * regularisers.zero_centred(judge, batch.real)
        if config.r2_gamma:
            penalties["r2"] = config.r2_gamma * regularisers.zero_centred(judge, fake)
        if config.loss == "wgan-gp":
            between = self._uniform("between")
            penalties["gp"] = regularisers.one_centred(judge, batch.real, fake, between)
        self.discriminator.train()
        return {name: config.penalty_every * value for name, value in penalties.items()}

    def _label_loss(self, name: str, logits: Tensor | None, batch: Batch) -> dict[str, Tensor]:
        """Weighted label loss under ``name``; empty without a label head."""
        if logits is None:
            return {}
        loss = label_loss(logits, batch.labels, batch.known, self.sizes)
        return {name: self._label_weight * self._label_strength * loss}

    def _update(
        self, network: nn.Module, optimizer: torch.optim.Optimizer, losses: Mapping[str, Tensor]
    ) -> None:
        optimizer.zero_grad()
        torch.stack(list(losses.values())).sum().backward()
        distributed.average_gradients(network)
        optimizer.step()

    @contextmanager
    def _frozen_discriminator(self) -> Iterator[None]:
        """Disable its weight gradients and power iterations, which the generator's step does not
        need; that saves a fifth of the step's time."""
        self.discriminator.requires_grad_(False).eval()
        yield
        self.discriminator.requires_grad_(True).train()

    def _schedule(self) -> None:
        """Set the learning rates and the strength of the labels for the current position."""
        hold, done = self.config.lr_hold, self.shown / (self.config.kimg * 1000)
        progress = max(done - hold, 0) / (1 - hold) if hold < 1 else 0.0
        decay = (1 + math.cos(math.pi * min(progress, 1))) / 2
        for optimizer in self._optimizers().values():
            for group in optimizer.param_groups:
                group["lr"] = group["initial_lr"] * decay
        start, end = self.config.label_weight, self.config.label_weight_end
        self._label_weight = start if end is None else start + (end - start) * min(done, 1)
        ramp = self.config.label_ramp_kimg * 1000
        self._label_strength = min(self.shown / ramp, 1.0) if ramp else 1.0
        generators = (self.generator, self.ema, *self.averages.values())
        self.discriminator.condition_strength.fill_(self._label_strength)
        for network in generators:
            network.condition_strength.fill_(self._label_strength)

    def _mirrored(self, images: Tensor) -> Tensor:
        if not self.config.mirror:
            return images
        return mirror(images, self._uniform("mirror"))

    def _augmented(self, purpose: str, images: Tensor) -> Tensor:
        operations = self.config.augment
        if not operations:
            return images
        probability: float | Tensor = self.config.augment_probability
        if self.adaptive is not None:
            probability = self.adaptive.value
        uniform = self._uniform(purpose, len(operations), DRAWS)
        noise = None
        if "noise" in operations:
            noise = 2 * self._uniform(f"{purpose}-noise", *images.shape[1:]) - 1
        return augment(images, operations, probability, uniform, noise)

    def _latents(self, purpose: str) -> Tensor:
        whole = torch.randn(
            self.config.batch,
            self.config.latent_size,
            generator=self._stream(purpose),
            device=self.device,
        )
        return distributed.share(whole)

    def _uniform(self, purpose: str, *shape: int) -> Tensor:
        """Uniform numbers ``[N, *shape]`` in [0, 1), N being this process's share."""
        whole = torch.rand(
            self.config.batch, *shape, generator=self._stream(purpose), device=self.device
        )
        return distributed.share(whole)

    def _stream(self, purpose: str) -> torch.Generator:
        return stream(self.config.seed, purpose, self.shown, self.device)

    def _chance(self, purpose: str) -> AbstractContextManager[None]:
        """Seeds for the layers of the discriminator that draw at random."""
        if not (STYLES[self.config.network].dropout or self.chain):
            return nullcontext()
        purpose = f"{purpose}-{distributed.rank()}"
        return scoped_seed(self.config.seed, purpose, self.shown, self.device)

    def _convolving(self) -> AbstractContextManager[object]:
        return convolutions_in(self.precision, self.device)

    def _adam(self, network: nn.Module, lr: float) -> Adam:
        betas = (self.config.beta1, self.config.beta2)
        adam = Adam(network.parameters(), lr, betas, fused=True)
        for group in adam.param_groups:
            group["initial_lr"] = lr
        return adam

    def _check_and_synchronise(self) -> None:
        """Synchronise batch norms. Raises ``RunError`` if the batch cannot be split evenly."""
        share = self.config.batch / distributed.world_size()
        group = MINIBATCH_GROUPS[self.config.minibatch]
        if share % group:
            raise RunError(
                f"a batch of {self.config.batch} cannot be split over {distributed.world_size()} "
                f"processes" + (f" in groups of {group}" if group > 1 else "")
            )
        synchronise_batch_norm(self.generator)
        synchronise_batch_norm(self.discriminator)

    def _networks(self) -> dict[str, nn.Module]:
        networks: dict[str, nn.Module] = {
            "generator": self.generator,
            "discriminator": self.discriminator,
            "ema": self.ema,
            "lecam": self.lecam,
        }
        networks |= {f"ema-{sigma:g}": average for sigma, average in self.averages.items()}
        return networks if self.adaptive is None else networks | {"adaptive": self.adaptive}

    def _optimizers(self) -> dict[str, torch.optim.Optimizer]:
        return {"g_adam": self.g_adam, "d_adam": self.d_adam}
