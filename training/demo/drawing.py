"""Pictures of the demo, from the states of its two variants."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from training.demo.gaussian import AXIS, MEAN, STDDEV, State
from training.plots.figures import INK, add_legend, new_figure, to_image

SIZE = (960, 400)
TOP = 0.77
"""Upper end of the plots, below three rows of titles, as a share of the height."""

FRAMES = 50
FRAME_MS, LAST_FRAME_MS = 100, 3000
COLOURS = 64

DATA, GENERATED, VERDICT = "#0969da", "#d1570a", "#1a7f37"
VARIANTS = (GENERATED, VERDICT)
"""Colours of the curves of the first and the second variant."""

BANDWIDTH = 0.05
"""Standard deviation of the kernel for densities: a tenth of the data's deviation."""


@dataclass(frozen=True)
class Variant:
    """One of two runs, which have states at the same steps."""

    name: str
    states: Sequence[State]


Floats = npt.NDArray[np.floating]
Variants = tuple[Variant, Variant]


def animation(variants: Variants) -> bytes:
    """Animated WebP of at most FRAMES frames, spread evenly over the states."""
    last = len(variants[0].states) - 1
    indices = sorted({round(last * k / (FRAMES - 1)) for k in range(FRAMES)})
    frames = [densities(variants, index) for index in indices]
    # A palette of few colours for all frames makes the file three times smaller.
    palette = frames[-1].quantize(COLOURS, Image.Quantize.FASTOCTREE)
    few = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
    first, *others = [frame.convert("RGB") for frame in few]
    buffer = io.BytesIO()
    first.save(
        buffer,
        "WEBP",
        save_all=True,
        append_images=others,
        duration=[FRAME_MS] * len(others) + [LAST_FRAME_MS],
        loop=0,
        lossless=True,
        quality=40,  # effort of lossless compression
        method=3,
    )
    return buffer.getvalue()


def densities(variants: Variants, index: int) -> Image.Image:
    """Picture of data, generated samples and the discriminator's output at state ``index``."""
    states = [variant.states[index] for variant in variants]
    titles = [
        f"{variant.name}\nmean {state.mean:.2f}, standard deviation {state.stddev:.2f}"
        for variant, state in zip(variants, states, strict=True)
    ]
    figure, panels = new_figure(SIZE, titles)
    figure.suptitle(f"A GAN learns N({MEAN:g}, {STDDEV:g}): step {states[0].step:,}", color=INK)
    figure.subplots_adjust(top=TOP)
    bell = np.exp(-(((AXIS - MEAN) / STDDEV) ** 2) / 2) / (STDDEV * np.sqrt(2 * np.pi))
    for axes, state in zip(panels, states, strict=True):
        for heights, colour, label in (
            (bell, DATA, "density of the data"),
            (density(state.generated), GENERATED, "density of generated samples"),
        ):
            axes.plot(AXIS, heights, color=colour, label=label)
            axes.fill_between(AXIS, heights, color=colour, alpha=0.2, linewidth=0)
        label = "discriminator's probability that a number is real"
        axes.plot(AXIS, state.verdict, color=VERDICT, label=label)
        axes.set(xlim=(AXIS[0], AXIS[-1]), ylim=(0, 2))
    add_legend(figure)
    return to_image(figure)


def curves(variants: Variants) -> Image.Image:
    """Picture of the mean and standard deviation of generated samples over the steps."""
    figure, (means, deviations) = new_figure(SIZE, ("mean", "standard deviation"))
    figure.suptitle("Generated samples over the steps", color=INK)
    figure.subplots_adjust(top=TOP)
    means.set_ylim(2, 6)
    deviations.set_ylim(0, 2)
    for axes, quantity, target in ((means, "mean", MEAN), (deviations, "stddev", STDDEV)):
        axes.axhline(target, color=DATA, label="the data")
        for variant, colour in zip(variants, VARIANTS, strict=True):
            steps = [state.step for state in variant.states]
            values = [getattr(state, quantity) for state in variant.states]
            axes.plot(steps, values, color=colour, label=variant.name)
    add_legend(figure)
    return to_image(figure)


def density(samples: Floats) -> Floats:
    """Density of ``samples [N]`` at ``AXIS``, by a Gaussian kernel of ``BANDWIDTH``."""
    distances = (AXIS[:, None] - samples) / BANDWIDTH
    return np.exp(-(distances**2) / 2).mean(axis=1) / (BANDWIDTH * np.sqrt(2 * np.pi))
