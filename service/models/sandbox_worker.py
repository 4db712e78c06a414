"""``python -m service.models.sandbox_worker BYTES SECONDS``: check model files in a child process.

A malformed file may crash ONNX Runtime, make it run for ever, or exhaust the memory. So this
process, started by ``sandbox.py``, loads and runs each file before the service does.

``BYTES`` limits the size of a file, ``SECONDS`` the time of its check. stdin: a JSON list of paths,
each verifier after its model. stdout: an empty line when the process is ready, then one line per
file, in order: ``{"sha256": HASH}`` if it is accepted, ``{"refused": REASON}`` otherwise.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from service.inference.model import Model

GIB = 1024**3
BASE_MEMORY_BYTES = 2 * GIB
"""Address space for the libraries and for computing, without the model."""
MODEL_COPIES = 8
"""Copies of a model that may be in memory: as bytes, as a message, as weights, packed ..."""
MAX_REASON_CHARACTERS = 1000
STDERR_BYTES = 64 * 1024
"""Size limit of a file that this process writes; stderr is the only one."""


def main() -> None:
    max_bytes, seconds = int(sys.argv[1]), float(sys.argv[2])
    _limit(max_bytes)
    answers = _reserve_stdout()

    # Imported under the limits.
    from service.errors import InvalidModel

    check = FileCheck(max_bytes)
    print(file=answers, flush=True)
    for name in json.loads(sys.stdin.read() or "[]"):  # empty if the service has ended
        _limit_seconds(seconds)
        try:
            answer = {"sha256": check(Path(name))}
        except InvalidModel as error:
            answer = {"refused": str(error)[:MAX_REASON_CHARACTERS]}
        except MemoryError:
            answer = {"refused": "it exceeds the memory limit of the sandbox"}
        print(json.dumps(answer), file=answers, flush=True)


class FileCheck:
    """Checks one file per call."""

    def __init__(self, max_bytes: int) -> None:
        from service.inference import graph_check  # loads ONNX Runtime
        from service.inference.session import SessionFactory

        self._max_bytes = max_bytes
        self._check_structure = graph_check.check_structure
        self._runtime = SessionFactory("cpu")
        self._models: dict[Path, Model] = {}

    def __call__(self, path: Path) -> str:
        """SHA-256 of the file's content. Raises ``InvalidModel``, ``MemoryError``."""
        from service.core.manifest import MODEL_FILE
        from service.errors import InvalidModel
        from service.inference.execution import ThreadedExecutor
        from service.inference.model import model_of, read_file
        from service.inference.verifier import load_verifier

        content = read_file(path, self._max_bytes)
        self._check_structure(content)
        if path.name == MODEL_FILE:
            model = model_of(
                path, content, self._runtime, lambda _, __, session: ThreadedExecutor(session, None)
            )
            self._models = {path.parent: model}
        elif path.parent in self._models:
            load_verifier(content, self._models[path.parent].manifest, self._runtime)
        else:
            raise InvalidModel("the model beside it was rejected")
        return hashlib.sha256(content).hexdigest()


def _reserve_stdout() -> TextIO:
    """Stdout for answers only; output of libraries goes to stderr."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="ascii")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    return answers


def _limit(max_bytes: int) -> None:
    """Limit memory, CPU priority and output of this process, to protect the rest of the machine."""
    if sys.platform == "win32":
        return
    import resource

    os.nice(10)
    memory = BASE_MEMORY_BYTES + MODEL_COPIES * max_bytes
    for resource_kind, limit in (
        (resource.RLIMIT_AS, memory),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, STDERR_BYTES),
    ):
        _, hard = resource.getrlimit(resource_kind)
        limit = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
        resource.setrlimit(resource_kind, (limit, limit))
    # If the machine runs out of memory earlier, the kernel kills this process first.
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")


def _limit_seconds(seconds: float) -> None:
    """Have the kernel end this process in ``seconds``, even if the service was killed."""
    if sys.platform != "win32":
        signal.signal(signal.SIGALRM, signal.SIG_DFL)  # the parent may ignore it
        signal.setitimer(signal.ITIMER_REAL, seconds)


if __name__ == "__main__":
    main()
