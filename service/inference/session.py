"""ONNX Runtime sessions on the requested device, without silent fallback to the CPU.

ONNX Runtime falls back silently in three cases: with the CPU wheel, if a CUDA library fails to
load, and in the middle of a run. To prevent this, CUDA is the only provider in the list, fallback
is disabled in the session and in its Python wrapper, and the provider in use is checked.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime as ort

from service.core.text import first_line
from service.errors import StartupError

if TYPE_CHECKING:
    from service.settings import Device  # not loaded in the sandbox

CUDA = "CUDAExecutionProvider"
CPU = "CPUExecutionProvider"
CUDA_OPTIONS = {
    # EXHAUSTIVE and DEFAULT take up to seconds for each new shape, for no gain here.
    "cudnn_conv_algo_search": "HEURISTIC",
    # TF32 would round differently from the CPU by more than a level of 255.
    "use_tf32": "0",
}
FATAL_ONLY = 4
"""Log level of ONNX Runtime."""
NO_FOLDER = "/dev/null/nowhere"
"""A folder that cannot exist, because its parent is a file."""


class SessionFactory:
    """Creates sessions on one device. Call ``probe_cuda`` before the first ``create``."""

    def __init__(self, device: Device, cores: int = 1) -> None:
        """``cores`` is the number of CPU cores to use.

        Raises ``StartupError`` if ``device`` is ``cuda`` and a library or driver is missing.
        """
        self.requested = device
        self._cores = cores
        self.provider_options: dict[str, str] = {}
        """As reported by ONNX Runtime for the latest session; empty before the first."""
        self.provider = CPU if device == "cpu" else CUDA
        self.reason = f"requested {device}"
        if self.provider == CUDA:
            if missing := _missing_for_cuda():
                self._fall_back(missing)
            else:
                # Only this call finds the CUDA libraries of the nvidia wheels.
                ort.preload_dlls(directory="")

    @property
    def threads(self) -> int:
        """Threads that compute and encode: one for each core, and one to feed a GPU."""
        return self._cores + (self.provider == CUDA)

    @property
    def concurrent_batches(self) -> int:
        """Threads that run models at the same time; 1 for a GPU, where more would only wait."""
        return 1 if self.provider == CUDA else self._cores

    @property
    def device(self) -> str:
        """Device in use, ``cuda`` or ``cpu``."""
        return "cuda" if self.provider == CUDA else "cpu"

    def probe_cuda(self, models: Iterable[bytes]) -> None:
        """Use CUDA if one of ``models``, contents of ONNX files, runs on it; otherwise the CPU.

        Raises ``StartupError`` if CUDA was requested and is not available.
        """
        why = "there is no model to test it with"
        for model in models if self.provider == CUDA else ():
            try:
                _run_once(_session(model, CUDA))
            except Exception as error:
                why = first_line(error)
            else:
                self.reason = f"requested {self.requested}, and CUDA works"
                return
        if self.provider == CUDA:
            self._fall_back(why)

    def create(
        self, model: bytes, *, threads: int = 1, batch: int | None = None
    ) -> ort.InferenceSession:
        """Session for ``model``, the content of an ONNX file.

        ``threads`` compute one run, including the calling thread. With ``batch``, the session
        accepts only batches of this size. Raises errors of ONNX Runtime.
        """
        session = _session(model, self.provider, threads, batch)
        self.provider_options = session.get_provider_options()[self.provider]
        return session

    def _fall_back(self, why: str) -> None:
        if self.requested == "cuda":
            raise StartupError(f"FIGMENT_DEVICE is cuda, but CUDA is not available: {why}")
        self.provider = CPU
        self.reason = f"requested {self.requested}, but CUDA is not available: {why}"


def _missing_for_cuda() -> str | None:
    """Reason why CUDA cannot work here; None if only a run can show it."""
    if CUDA not in ort.get_available_providers():
        return "the installed ONNX Runtime is built without it"
    if sys.platform == "linux":
        try:
            ctypes.CDLL("libcuda.so.1")
        except OSError:
            return "there is no NVIDIA driver here (libcuda.so.1)"
    return None


def _session(
    model: bytes, provider: str, threads: int = 1, batch: int | None = None
) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.log_severity_level = FATAL_ONLY  # errors are raised, and logged once by the caller
    # Otherwise it tries its own format first, which the sandbox does not check.
    options.add_session_config_entry("session.load_model_format", "ONNX")
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Its threads may spin while they wait for each other, but not after a run: the event loop
    # needs the core to send the answer.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    if batch is not None:
        for name in batch_names(model):
            options.add_free_dimension_override_by_name(name, batch)
    # Otherwise it looks for external weights in the current directory.
    options.add_session_config_entry(
        "session.model_external_initializers_file_folder_path", NO_FOLDER
    )
    providers: list[Any] = [provider]
    if provider == CUDA:
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
        providers = [(CUDA, CUDA_OPTIONS)]
    session = ort.InferenceSession(model, options, providers=providers, enable_fallback=0)
    session.disable_fallback()
    if session.get_providers()[0] != provider:
        raise RuntimeError(f"ONNX Runtime chose {session.get_providers()} instead of {provider}")
    return session


def batch_names(model: bytes) -> set[str]:
    """Names of the batch dimension in the inputs of a model file."""
    session = _session(model, CPU)
    return {node.shape[0] for node in session.get_inputs() if isinstance(node.shape[0], str)}


def _run_once(session: ort.InferenceSession) -> None:
    feeds = {
        node.name: np.zeros((1, node.shape[1]), dtype=np.float32) for node in session.get_inputs()
    }
    session.run(None, feeds)
