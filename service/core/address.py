"""Permanent address of an image, as used in URLs and in the metadata of image files."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self
from urllib.parse import parse_qsl, quote_plus, urlsplit


@dataclass(frozen=True)
class Address:
    """Everything that determines one image.

    ``label`` is the canonical phrase of the requested label; attributes that it does not name are
    drawn from the seed and index.
    """

    model: str
    version: int
    seed: int
    index: int
    label: str | None = None
    truncation: float = 1.0

    @classmethod
    def parse(cls, url: str) -> Self:
        """Address of a path and query as ``url`` gives them. Raises ``ValueError``."""
        parts = urlsplit(url)
        root, images, model, version, seed, file = parts.path.split("/")
        if (root, images) != ("", "images"):
            raise ValueError(f"{url!r} is no address of an image")
        query = dict(parse_qsl(parts.query))
        return cls(
            model,
            int(version),
            int(seed),
            int(file.partition(".")[0]),
            query.get("label"),
            float(query.get("truncation", 1)),
        )

    def url(self, extension: str = "png") -> str:
        """Path and query: ``/images/anime-faces/2/3/0.png?label=red+eyes&truncation=0.8``."""
        query = []
        if self.label is not None:
            query.append(f"label={quote_plus(self.label)}")
        if self.truncation != 1:
            query.append(f"truncation={self.truncation!r}")
        path = f"/images/{self.model}/{self.version}/{self.seed}/{self.index}.{extension}"
        return "?".join([path, *filter(None, ["&".join(query)])])
