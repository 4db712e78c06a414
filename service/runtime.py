"""ONNX Runtime sessions on the device that was asked for, and on no other.

ONNX Runtime falls back to the CPU silently: with the CPU wheel, where a CUDA library fails to
load, and in the middle of a run. All three are closed off here: CUDA stands alone in the list of
providers, fallback is disabled in the session and in its wrapper, and the outcome is checked.
"""

from __future__ import annotations

import ctypes
import logging
import sys
from importlib import metadata
from typing import Any

import onnxruntime as ort

from service.errors import StartupError
from service.settings import Device

CUDA = "CUDAExecutionProvider"
CPU = "CPUExecutionProvider"
WHEELS = ("onnxruntime", "onnxruntime-gpu")
CUDA_OPTIONS = {
    # EXHAUSTIVE and DEFAULT cost up to seconds for each new shape and gain nothing here.
    "cudnn_conv_algo_search": "HEURISTIC",
    # TF32 would round differently from the CPU by more than a level of 255.
    "use_tf32": "0",
}
SILENT = 4
CHUNK = 16
"""Images in one run. More gains little, and one large batch takes much memory.

On CUDA it is also the only batch that is run, padded where there are fewer images: a change of the
batch has cuDNN plan anew, and may choose another algorithm, with other bits.
"""

log = logging.getLogger(__name__)


def check_installation() -> None:
    """Raise ``StartupError`` unless exactly one of the two runtime wheels is installed."""
    found = [name for name in WHEELS if _is_installed(name)]
    if not found:
        raise StartupError(
            "no ONNX Runtime is installed; install figment[cpu], or figment[gpu] for CUDA"
        )
    if len(found) > 1:
        raise StartupError(
            "both onnxruntime and onnxruntime-gpu are installed; they overwrite each other's "
            "files. Uninstall both, then install figment[cpu] or figment[gpu], not both"
        )


def _is_installed(distribution: str) -> bool:
    try:
        metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return False
    return True


class Runtime:
    """Opens sessions on one device, and knows what it came to be."""

    def __init__(self, device: Device) -> None:
        """Raises ``StartupError`` where ``device`` is ``cuda`` and plainly cannot be had."""
        self.requested = device
        self.provider = CPU if device == "cpu" else CUDA
        self.reason = f"asked for {device}"
        if self.provider == CUDA:
            if missing := _missing_for_cuda():
                self._go_without_cuda(missing)
            else:
                # The CUDA libraries of the wheels are found by this call, and by nothing else.
                ort.preload_dlls(directory="")

    @property
    def fixed_batch(self) -> int | None:
        """The one batch size to run, or None where any will do."""
        return CHUNK if self.provider == CUDA else None

    @property
    def device(self) -> str:
        """``cuda`` or ``cpu``: what is used, whatever was asked for."""
        return "cuda" if self.provider == CUDA else "cpu"

    def open(self, model: bytes) -> ort.InferenceSession:
        """A session for ``model``, the content of an ONNX file.

        Raises ``StartupError`` where CUDA was asked for and cannot be had, and whatever ONNX
        Runtime raises for a file that it cannot run.
        """
        if self.provider == CPU:
            return _session(model, CPU)
        try:
            session = _session(model, CUDA)
        except Exception as error:
            session = _session(model, CPU)  # raises where the file is at fault
            self._go_without_cuda(first_line(error))
            return session
        self.reason = f"asked for {self.requested}, and CUDA works"
        return session

    def _go_without_cuda(self, why: str) -> None:
        if self.requested == "cuda":
            raise StartupError(f"FIGMENT_DEVICE is cuda, but CUDA cannot be had: {why}")
        self.provider = CPU
        self.reason = f"asked for {self.requested}, but CUDA cannot be had: {why}"


def _missing_for_cuda() -> str | None:
    """Why CUDA cannot work here, where that can be told without trying."""
    if CUDA not in ort.get_available_providers():
        return "the installed ONNX Runtime is built without it"
    if sys.platform == "linux":
        try:
            ctypes.CDLL("libcuda.so.1")
        except OSError:
            return "there is no NVIDIA driver here (libcuda.so.1)"
    return None


def _session(model: bytes, provider: str) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.log_severity_level = SILENT  # what goes wrong is raised, and told once by the caller
    # One session without threads of its own, and one caller for each core (see engine.py), is the
    # fastest arrangement on a CPU.
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    providers: list[Any] = [provider]
    if provider == CUDA:
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
        providers = [(CUDA, CUDA_OPTIONS)]
    session = ort.InferenceSession(model, options, providers=providers, enable_fallback=0)
    session.disable_fallback()
    if session.get_providers()[0] != provider:
        raise RuntimeError(f"ONNX Runtime chose {session.get_providers()} instead of {provider}")
    return session


def first_line(error: BaseException) -> str:
    """An error of another library as one line."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), repr(error))
