"""Logs for TensorBoard, an optional dependency that is imported on use."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from service.formats.images import contact_sheet
from training.errors import RunError


def check_installed() -> None:
    """Raise ``RunError`` if TensorBoard is not installed."""
    _summary_writer()


class TensorBoardLog:
    """Writer of scalars and sample grids as TensorBoard event files."""

    def __init__(self, folder: Path, shown: int) -> None:
        """Write event files to ``folder``; TensorBoard discards events after ``shown`` images.

        Raises ``RunError`` if TensorBoard is not installed.
        """
        self._writer = _summary_writer()(str(folder), purge_step=shown + 1)

    def add_scalars(self, line: Mapping[str, float]) -> None:
        """Add a line of the log or of the scores; the x axis is images shown."""
        for name, value in line.items():
            if name != "shown":
                self._writer.add_scalar(name, value, int(line["shown"]))
        self._writer.flush()

    def add_grid(self, images: npt.NDArray[np.uint8], shown: int) -> None:
        """Add samples, uint8 ``[N, H, W, C]``, as one picture."""
        sheet = contact_sheet(list(images), None)
        self._writer.add_image("samples", sheet, shown, dataformats="HWC")
        self._writer.flush()


def _summary_writer() -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise RunError("--tensorboard needs TensorBoard: pip install tensorboard") from error
    return SummaryWriter
