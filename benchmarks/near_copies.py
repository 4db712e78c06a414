"""Count the copies, and the other images, that ``POST /detect`` calls a near match.

Needs a
running service with the shipped models: ``python -m benchmarks.near_copies URL``.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from functools import partial
from itertools import combinations

import httpx
import numpy as np
from PIL import Image

from service.core.image_info import Pixels
from service.formats import images, marks
from service.formats.detection import MAX_RELATIVE_DIFFERENCE, MAX_SMOOTHED_DIFFERENCE

COUNT = 256
LABELS = {
    "anime-faces/2": ["red eyes", "blue eyes", "green eyes", "purple eyes"],
    "digits/1": [str(digit) for digit in range(10)],
}


def saved(image: Image.Image, format_: str, quality: int) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, format_, quality=quality)
    return Image.open(buffer)


def scaled(image: Image.Image, factor: float) -> Image.Image:
    return image.resize((round(image.width * factor), round(image.height * factor)))


COPIES: dict[str, Callable[[Image.Image], Image.Image]] = {
    **{f"JPEG {q}": partial(saved, format_="JPEG", quality=q) for q in (90, 75, 50, 30)},
    **{f"WebP {q}": partial(saved, format_="WEBP", quality=q) for q in (75, 50)},
    **{f"size x {factor}": partial(scaled, factor=factor) for factor in (4, 2, 0.5)},
    "GIF palette": lambda image: image.convert("RGB").quantize(256),
}


def fetch(client: httpx.Client, model: str, seed: int, label: str | None = None) -> Pixels:
    query = {} if label is None else {"label": label}
    answer = client.get(f"/sets/{model}/{seed}/0-{COUNT - 1}.npy", params=query)
    answer.raise_for_status()
    pixels: Pixels = np.load(io.BytesIO(answer.content))
    return pixels


def report(name: str, found: list[marks.Difference]) -> None:
    near = sum(
        one.relative <= MAX_RELATIVE_DIFFERENCE and one.smoothed <= MAX_SMOOTHED_DIFFERENCE
        for one in found
    )
    smoothed = [one.smoothed for one in found]
    relative = [one.relative for one in found]
    print(
        f"  {name:16} {near:6} of {len(found):6} near; smoothed {min(smoothed):5.1f} to "
        f"{max(smoothed):5.1f}, relative {min(relative):.2f} to {max(relative):.2f}"
    )


def main(url: str) -> None:
    client = httpx.Client(base_url=url, timeout=60)
    for model, labels in LABELS.items():
        print(model)
        originals = fetch(client, model, 0)
        pictures = [images.picture(pixels) for pixels in originals]
        for name, copy in COPIES.items():
            values = [
                marks.difference(copy(p), x) for p, x in zip(pictures, originals, strict=True)
            ]
            report(name, values)
        report("black", [marks.difference(Image.new("L", (64, 64)), x) for x in originals])
        others = [
            marks.difference(p, x) for i, p in enumerate(pictures) for x in originals[i + 1 :]
        ]
        report("other index", others)
        relabelled = [fetch(client, model, 0, label) for label in labels]
        values = []
        for one, two in combinations(relabelled, 2):
            values += [
                marks.difference(images.picture(a), b) for a, b in zip(one, two, strict=True)
            ]
        report("other label", values)
        for label, same in zip(labels, relabelled, strict=True):
            pictures = [images.picture(pixels) for pixels in same]
            values = [marks.difference(p, x) for i, p in enumerate(pictures) for x in same[i + 1 :]]
            report(f"all {label}", values)


if __name__ == "__main__":
    main(sys.argv[1])
