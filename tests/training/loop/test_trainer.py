from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, logsigmoid

from service.core import latents
from tests.helpers.small_runs import CPU, Start, data, equal, tensors, trainer_of
from training.core.pixels import to_networks
from training.core.randomness import batch_indices, stream
from training.data import Dataset
from training.loop.trainer import Trainer
from training.networks import ema
from training.networks.conditioning import condition_rows, mismatch
from training.networks.networks import Discriminator, Generator
from training.networks.norms import BatchNorm


def written_out(
    trainer: Trainer, images: Tensor, labels: Tensor
) -> tuple[Generator, Discriminator]:
    """Networks after the next step, computed from the formulas alone."""
    config, sizes, shown = trainer.config, trainer.sizes, trainer.shown
    generator = copy.deepcopy(trainer.generator)
    discriminator = copy.deepcopy(trainer.discriminator)

    def generator_for(purpose: str) -> torch.Generator:
        return stream(config.seed, purpose, shown, CPU)

    def label_losses(logits: Tensor) -> Tensor:
        heads = zip(logits.split(list(sizes), dim=1), right.T, strict=True)
        return config.label_weight * sum((cross_entropy(h, y) for h, y in heads), torch.zeros(()))

    def adam_step(network: nn.Module, loss: Tensor) -> None:
        network.zero_grad()
        loss.backward()
        betas = (config.beta1, config.beta2)
        torch.optim.Adam(network.parameters(), config.lr, betas, foreach=False).step()

    chosen = batch_indices(config.seed, len(images), shown, config.batch, CPU)
    right = labels[chosen]
    condition = condition_rows(right, sizes)
    known = torch.ones_like(right, dtype=torch.bool)
    wrong = condition_rows(mismatch(right, known, sizes, generator_for("mismatch"))[0], sizes)
    real = to_networks(images[chosen])
    coins = torch.rand(config.batch, generator=generator_for("mirror"))
    real[coins < 0.5] = real[coins < 0.5].flip(-1)
    fake = generator(
        torch.randn(config.batch, config.latent_size, generator=generator_for("latent")), condition
    )

    (on_right, on_wrong), read = discriminator(real, condition, wrong)
    (on_fake,), _ = discriminator(fake.detach(), condition)
    d_loss = -logsigmoid(on_right).mean()
    d_loss = d_loss - (logsigmoid(-on_fake).mean() + logsigmoid(-on_wrong).mean()) / 2
    adam_step(discriminator, d_loss + label_losses(read))

    (on_fake,), read = discriminator(fake, condition)
    adam_step(generator, -logsigmoid(on_fake).mean() + label_losses(read))
    return generator, discriminator


def test_step_equals_the_written_out_formulas(start: Start, faces: Dataset) -> None:
    trainer = trainer_of(start())
    generator, discriminator = written_out(trainer, *data(faces))
    trainer.step(*data(faces))
    for found, expected in ((trainer.discriminator, discriminator), (trainer.generator, generator)):
        pairs = zip(found.parameters(), expected.parameters(), strict=True)
        difference = torch.cat([(one - other).flatten().abs() for one, other in pairs])
        # Adam's first step moves every weight by the learning rate, one way or the other; where the
        # gradient is zero but for rounding, it may be the other.
        assert (difference > 0.05 * trainer.config.lr).float().mean() < 0.01


def test_each_step_leaves_the_other_network_unchanged(start: Start, faces: Dataset) -> None:
    trainer = trainer_of(start())
    states: dict[str, dict[str, Tensor]] = {"start": tensors(trainer.generator)}
    step = trainer.d_adam.step

    def remember() -> None:
        step()
        states["generator"] = dict(trainer.generator.named_parameters())
        states["discriminator"] = tensors(trainer.discriminator)
        assert all(torch.equal(p, states["start"][name]) for name, p in states["generator"].items())

    trainer.d_adam.step = remember
    trainer.step(*data(faces))
    # The whole state, buffers too: batch norm must not have learnt from the generator's step.
    assert equal(tensors(trainer.discriminator), states["discriminator"])
    assert not equal(tensors(trainer.generator), states["start"])
    assert all(parameter.requires_grad for parameter in trainer.discriminator.parameters())


def test_mirroring_swaps_left_and_right_of_half_the_images(start: Start) -> None:
    image = torch.arange(3 * 16 * 16.0).reshape(1, 3, 16, 16)
    mirrored = trainer_of(start(batch=100))._mirrored(image.expand(100, -1, -1, -1))
    swapped = torch.tensor([torch.equal(one, image[0].flip(-1)) for one in mirrored])
    assert 30 < swapped.sum() < 70
    assert all(
        torch.equal(one, image[0]) for one, was in zip(mirrored, swapped, strict=True) if not was
    )
    plain = trainer_of(start("plain", mirror=False))._mirrored(image)
    assert torch.equal(plain, image)


def test_discriminator_learns_real_from_fake_and_right_from_wrong_labels(
    start: Start, faces: Dataset
) -> None:
    trainer = trainer_of(start(lr=1e-3, kimg=10))
    steps = [trainer.step(*data(faces)) for _ in range(150)]

    def late(name: str) -> float:
        return sum(step[name].item() for step in steps[-10:]) / 10

    assert late("d_real") > late("d_fake") + 0.2
    assert late("d_real") > late("d_mismatched") + 0.1
    assert late("d_label_loss") < 0.9 * steps[0]["d_label_loss"].item()


def test_lecam_and_chain_add_to_the_loss_and_keep_their_state(
    start: Start, faces: Dataset, tmp_path: Path
) -> None:
    trainer = trainer_of(start(d_norm="chain", lecam_weight=0.3))
    for layer in trainer.chain:
        layer.share.fill_(0.5)
    statistics = trainer.step(*data(faces))
    assert statistics["lecam"] > 0
    assert statistics["chain"] > 0
    assert {round(layer.share.item(), 4) for layer in trainer.chain} == {0.498}
    trainer.save(tmp_path / "checkpoint")
    other = trainer_of(start("other", d_norm="chain", lecam_weight=0.3))
    other.load(tmp_path / "checkpoint")
    assert equal(tensors(other.lecam), tensors(trainer.lecam))
    assert [layer.share for layer in other.chain] == [layer.share for layer in trainer.chain]
    assert equal(trainer.step(*data(faces)), other.step(*data(faces)))


def test_adaptive_probability_starts_without_augmentation(start: Start, faces: Dataset) -> None:
    options = {"augment": "geometric,noise", "augment_target": 0.5}
    trainer = trainer_of(start(**options))
    images = torch.rand(16, 3, 16, 16)
    assert torch.equal(trainer._augmented("augment-real", images), images)
    assert trainer.adaptive is not None
    trainer.adaptive.value.fill_(0.7)
    changed = (trainer._augmented("augment-real", images) != images).flatten(1).any(dim=1)
    assert 8 <= changed.sum() <= 16
    trainer.step(*data(faces))
    assert trainer.adaptive.value != 0.7


def test_consistency_is_the_squared_change_by_augmentation(start: Start, faces: Dataset) -> None:
    options = {"augment": "cutout", "consistency_real": 10, "consistency_fake": 5, "d_norm": "none"}
    trainer = trainer_of(start(**options))
    statistics = trainer.step(*data(faces))
    assert statistics["d_consistency_real"] > 0
    assert statistics["d_consistency_fake"] > 0
    plain = trainer_of(start("plain", **options | {"augment_probability": 1e-9}))
    statistics = plain.step(*data(faces))
    assert statistics["d_consistency_real"] == statistics["d_consistency_fake"] == 0


def test_weight_of_the_label_head_moves_evenly(start: Start, faces: Dataset) -> None:
    trainer = trainer_of(start(kimg=1, label_weight=0.4, label_weight_end=0.1))
    weights = []
    for shown in (0, 500, 1000):
        trainer.shown = shown
        trainer._schedule()
        weights.append(trainer._label_weight)
    assert weights == pytest.approx([0.4, 0.25, 0.1])


def test_learning_rate_holds_then_falls_along_a_cosine(start: Start, faces: Dataset) -> None:
    trainer = trainer_of(start(lr=1.0, lr_hold=0.5, kimg=1))
    rates = []
    for shown in (0, 500, 625, 750, 1000):
        trainer.shown = shown
        trainer._schedule()
        rates.append(trainer.g_adam.param_groups[0]["lr"])
    assert rates == pytest.approx([1, 1, 0.8536, 0.5, 0], abs=1e-4)


def test_moving_average_has_its_half_life(start: Start) -> None:
    trainer = trainer_of(start())
    average, live = trainer.ema, trainer.generator
    for parameter in average.parameters():
        parameter.fill_(1.0)
    with torch.no_grad():
        for parameter in live.parameters():
            parameter.zero_()
    for step in range(1, 11):
        ema.update(average, live, ema.exponential_beta(10**9 + step, 100, 1000))
    assert next(average.parameters()).flatten()[0].item() == pytest.approx(0.5, rel=1e-5)


@pytest.mark.parametrize("sigma", [0.05, 0.1])
def test_power_average_has_its_width_at_any_length(sigma: float) -> None:
    for length in (20_000, 100_000):
        weights, batch = torch.zeros(length // 10), 10
        for step in range(1, len(weights) + 1):
            beta = ema.power_beta(step * batch, batch, sigma)
            weights[:step] *= beta
            weights[step - 1] += 1 - beta
        assert weights.sum().item() == pytest.approx(1, rel=1e-3)
        age = torch.linspace(0, 1, len(weights))
        mean = (weights * age).sum()
        deviation = (weights * (age - mean).square()).sum().sqrt()
        assert deviation.item() == pytest.approx(sigma, rel=0.02)


def test_recalibrated_batch_norm_has_the_statistics_of_samples(
    start: Start, faces: Dataset
) -> None:
    trainer = trainer_of(start())
    trainer.step(*data(faces))
    trainer.recalibrate_batch_norm()
    convolution, norm = trainer.ema.blocks[0].convolution, trainer.ema.blocks[0].norm
    assert isinstance(norm, BatchNorm) and norm.running_mean is not None
    assert norm.running_var is not None
    latent = torch.from_numpy(latents.latents(0, 0, 4096, 8))
    labels = latents.draw_labels(0, 0, 4096, faces.attributes)
    condition = condition_rows(torch.from_numpy(labels), trainer.sizes)
    maps = convolution(torch.cat([latent, condition], dim=1)[:, :, None, None])
    deviation = maps.std(dim=(0, 2, 3))
    error = norm.running_mean - maps.mean(dim=(0, 2, 3))
    assert (error.abs() < 0.1 * deviation).all()
    assert norm.running_var.sqrt().numpy() == pytest.approx(deviation.detach().numpy(), rel=0.1)

    # In inference mode, so an image does not depend on its batch.
    alone = trainer.ema(latent[1:2], condition[1:2])
    assert torch.allclose(alone, trainer.ema(latent[:4], condition[:4])[1:2], atol=1e-6)
