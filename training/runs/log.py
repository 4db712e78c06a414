"""Logs of a run: JSON Lines files that survive a kill."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from service.core.atomic_write import write_atomically


@dataclass(frozen=True)
class Log:
    """JSON Lines file; each object has ``shown``, the number of images shown so far."""

    path: Path

    def append(self, line: Mapping[str, Any]) -> None:
        """Write ``line`` to disk, in place of a line cut short by a kill."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("ab+") as file:
            end = file.seek(0, os.SEEK_END)
            file.seek(0)
            torn = len(file.read().rpartition(b"\n")[2])
            file.truncate(end - torn)
            file.write(json.dumps(line, allow_nan=False).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())

    def lines(self) -> list[dict[str, Any]]:
        """Complete lines, up to one cut short by a kill."""
        lines: list[dict[str, Any]] = []
        if self.path.exists():
            for text in self.path.read_text(encoding="utf-8").splitlines():
                try:
                    lines.append(json.loads(text))
                except ValueError:
                    break
        return lines

    def rewind(self, shown: int) -> None:
        """Remove the lines after ``shown`` images, and one cut short by a kill."""
        kept = [line for line in self.lines() if line["shown"] <= shown]
        if self.path.exists():
            write_atomically(self.path, "".join(json.dumps(line) + "\n" for line in kept))
