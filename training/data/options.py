"""Options of reading that every layout gets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from training.data import splits
from training.data.framing import Framing
from training.data.reading import Reading
from training.errors import Unlabelled


@dataclass(frozen=True)
class Options:
    attributes: tuple[str, ...] | None = None
    """Labels to learn; None for all, empty for none."""
    framing: Framing = field(default_factory=Framing)
    split: str | None = None
    """Split to train on; None for the one for training, ``none`` for all."""
    table: str | None = None
    """File that the labels come from, if there are several."""
    encoding: str | None = None
    """Encoding of names and tables that are not UTF-8."""
    skip_bad: bool = False
    """Leave out images that cannot be read, instead of stopping."""

    def split_of(self, candidates: Sequence[str]) -> str | None:
        """``split`` if the names of several ``candidates`` tell of it; a file may hold splits."""
        parts = {part for name in candidates for part in name.split("/")}
        told = any(part == self.split or splits.kind_of(part) for part in parts)
        return self.split if len(candidates) > 1 and told else None

    def unlabelled(self, source: str, why: str, reading: Reading) -> Unlabelled:
        """Error for data without labels that was not asked for."""
        seen = [f"seen, not read as a label: {what} ({x})" for what, x in reading.unread.items()]
        return Unlabelled(source, [f"{why}; --unconditional learns without labels", *seen])
