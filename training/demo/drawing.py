"""Pictures of the demo, from the states of its two variants."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from training.demo.gaussian import AXIS, MEAN, STDDEV, State
from training.plots.canvas import FAINT, Box, Canvas, Floats, Plot

SIZE = (960, 400)
MIDDLE = SIZE[0] / 2
PANELS: tuple[Box, Box] = ((50, 102, 460, 325), (525, 102, 935, 325))
TITLE_SIZE, NAME_SIZE = 20, 16
TITLE, NAME, NUMBERS, LEGEND = 26, 62, 85, 376
"""Vertical positions of the rows of text, in pixels."""

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
    canvas = Canvas(SIZE)
    step = variants[0].states[index].step
    canvas.text((MIDDLE, TITLE), f"A GAN learns N({MEAN:g}, {STDDEV:g}): step {step:,}", TITLE_SIZE)
    bell = np.exp(-(((AXIS - MEAN) / STDDEV) ** 2) / 2) / (STDDEV * np.sqrt(2 * np.pi))
    for variant, panel in zip(variants, PANELS, strict=True):
        state = variant.states[index]
        middle = (panel[0] + panel[2]) / 2
        numbers = f"mean {state.mean:.2f}, standard deviation {state.stddev:.2f}"
        canvas.text((middle, NAME), variant.name, NAME_SIZE)
        canvas.text((middle, NUMBERS), numbers, NAME_SIZE, FAINT)
        plot = Plot(panel, xticks=range(0, 9, 2), yticks=(0, 0.5, 1, 1.5, 2))
        plot.area(AXIS, bell, DATA)
        plot.area(AXIS, density(state.generated), GENERATED)
        plot.line(AXIS, state.verdict, VERDICT)
        canvas.plot(plot)
    entries = [
        ("density of the data", DATA),
        ("density of generated samples", GENERATED),
        ("discriminator's probability that a number is real", VERDICT),
    ]
    canvas.legend(LEGEND, entries)
    return canvas.finish()


def curves(variants: Variants) -> Image.Image:
    """Picture of the mean and standard deviation of generated samples over the steps."""
    canvas = Canvas(SIZE)
    canvas.text((MIDDLE, TITLE), "Generated samples over the steps", TITLE_SIZE)
    steps = np.array([state.step for state in variants[0].states])
    quantities: list[tuple[str, float, Sequence[float], Callable[[State], float]]] = [
        ("mean", MEAN, (2, 3, 4, 5, 6), lambda state: state.mean),
        ("standard deviation", STDDEV, (0, 0.5, 1, 1.5, 2), lambda state: state.stddev),
    ]
    for (name, target, yticks, quantity), panel in zip(quantities, PANELS, strict=True):
        canvas.text(((panel[0] + panel[2]) / 2, NUMBERS), name, NAME_SIZE)
        plot = Plot(panel, [round(steps[-1] * k / 4) for k in range(5)], yticks)
        plot.line(steps, np.full(len(steps), target), DATA)
        for variant, colour in zip(variants, VARIANTS, strict=True):
            plot.line(steps, np.array([quantity(state) for state in variant.states]), colour)
        canvas.plot(plot)
    names = [variant.name for variant in variants]
    canvas.legend(LEGEND, [("the data", DATA), *zip(names, VARIANTS, strict=True)])
    return canvas.finish()


def density(samples: Floats) -> Floats:
    """Density of ``samples [N]`` at ``AXIS``, by a Gaussian kernel of ``BANDWIDTH``."""
    distances = (AXIS[:, None] - samples) / BANDWIDTH
    return np.exp(-(distances**2) / 2).mean(axis=1) / (BANDWIDTH * np.sqrt(2 * np.pi))
