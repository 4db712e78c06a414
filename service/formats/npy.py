"""NumPy's own format: a header, then nothing but pixels."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np


def header(shape: Sequence[int]) -> bytes:
    """What stands before the pixels of a uint8 array of this shape, in C order."""
    buffer = io.BytesIO()
    description = {"descr": np.dtype(np.uint8).str, "fortran_order": False, "shape": tuple(shape)}
    np.lib.format.write_array_header_1_0(buffer, description)
    return buffer.getvalue()
