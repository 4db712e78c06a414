"""ONNX Runtime sessions on the device that was asked for, and on no other.

ONNX Runtime falls back to the CPU silently: with the CPU wheel, where a CUDA library fails to
load, and in the middle of a run. All three are closed off here: CUDA stands alone in the list of
providers, fallback is disabled in the session and in its wrapper, and the outcome is checked.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime as ort

from service.errors import StartupError

if TYPE_CHECKING:
    from service.settings import Device  # what vets a model does without

CUDA = "CUDAExecutionProvider"
CPU = "CPUExecutionProvider"
CUDA_OPTIONS = {
    # EXHAUSTIVE and DEFAULT cost up to seconds for each new shape and gain nothing here.
    "cudnn_conv_algo_search": "HEURISTIC",
    # TF32 would round differently from the CPU by more than a level of 255.
    "use_tf32": "0",
}
SILENT = 4

NOWHERE = "/dev/null/nowhere"
"""A folder that cannot be, below a file."""


class SessionFactory:
    """Opens sessions on one device. ``settle`` comes before the first ``open``."""

    def __init__(self, device: Device, cores: int = 1) -> None:
        """``cores``: how many to use of a CPU.

        Raises ``StartupError`` where ``device`` is ``cuda`` and plainly cannot be had.
        """
        self.requested = device
        self._cores = cores
        self.provider_options: dict[str, str] = {}
        """As ONNX Runtime reports them, once a session is open."""
        self.provider = CPU if device == "cpu" else CUDA
        self.reason = f"asked for {device}"
        if self.provider == CUDA:
            if missing := _missing_for_cuda():
                self._go_without_cuda(missing)
            else:
                # The CUDA libraries of the wheels are found by this call, and by nothing else.
                ort.preload_dlls(directory="")

    @property
    def threads(self) -> int:
        """Threads that run models at the same time. A GPU is fed by one: more would only wait."""
        return 1 if self.provider == CUDA else self._cores

    @property
    def encoders(self) -> int:
        """Threads that only encode; on a CPU, those that compute do that as well."""
        return self._cores if self.provider == CUDA else 0

    @property
    def device(self) -> str:
        """``cuda`` or ``cpu``: what is used, whatever was asked for."""
        return "cuda" if self.provider == CUDA else "cpu"

    def settle(self, models: Iterable[bytes]) -> None:
        """Decide for good: CUDA works if one of ``models``, contents of ONNX files, runs on it.

        Raises ``StartupError`` where CUDA was asked for and cannot be had.
        """
        why = "there is no model to try it with"
        for model in models if self.provider == CUDA else ():
            try:
                _run_once(_session(model, CUDA))
            except Exception as error:
                why = first_line(error)
            else:
                self.reason = f"asked for {self.requested}, and CUDA works"
                return
        if self.provider == CUDA:
            self._go_without_cuda(why)

    def open(
        self, model: bytes, *, threads: int = 1, batch: int | None = None
    ) -> ort.InferenceSession:
        """A session for ``model``, the content of an ONNX file.

        ``threads`` compute one run, the caller's among them. ``batch`` is the only size it will
        take. Raises whatever ONNX Runtime raises for a file that it cannot run.
        """
        session = _session(model, self.provider, threads, batch)
        self.provider_options = session.get_provider_options()[self.provider]
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


def _session(
    model: bytes, provider: str, threads: int = 1, batch: int | None = None
) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.log_severity_level = SILENT  # what goes wrong is raised, and told once by the caller
    # It would look for its own format first, which nobody here reads before it does.
    options.add_session_config_entry("session.load_model_format", "ONNX")
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Threads of its own may spin while they wait for each other, but not on after a run: whoever
    # takes the answer to the caller needs the core.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    if batch is not None:
        for name in batch_names(model):
            options.add_free_dimension_override_by_name(name, batch)
    # Weights outside the model file would be looked for in the current directory.
    options.add_session_config_entry(
        "session.model_external_initializers_file_folder_path", NOWHERE
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
    """What the model file calls the number of images, in each of its inputs."""
    session = _session(model, CPU)
    return {node.shape[0] for node in session.get_inputs() if isinstance(node.shape[0], str)}


def _run_once(session: ort.InferenceSession) -> None:
    feeds = {
        node.name: np.zeros((1, node.shape[1]), dtype=np.float32) for node in session.get_inputs()
    }
    session.run(None, feeds)


def first_line(error: BaseException) -> str:
    """An error of another library as one line."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), repr(error))
