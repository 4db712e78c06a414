"""``python -m service.models.sandbox_worker BYTES SECONDS``: look at model files, safely.

A malformed file may crash ONNX Runtime, keep it busy for ever, or have it take all memory. So it
is opened and run here first; ``vetting.py`` starts the process, and outlives it.

A file may have so many bytes, and keep a core busy for so many seconds. On stdin comes a list of
paths, each verifier after its model. On stdout goes ``{}`` once all is ready, then a line for each
file as soon as it is known: ``{"sha256": ...}`` of what was read, or ``{"refused": WHY}``.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from service.inference.model import Model

GIB = 1024**3
MEMORY = 2 * GIB
"""Bytes of address space for the libraries and for computing; the model comes on top."""
COPIES = 8
"""How many times a model may lie in memory: as bytes, as a message, as weights, packed ..."""
MOST_REASON = 1000
"""Characters."""


def main() -> None:
    max_bytes, seconds = int(sys.argv[1]), float(sys.argv[2])
    _limit(max_bytes)
    answers = _take_stdout()

    # Not before the limits are set.
    from service.errors import InvalidModel

    examine = _Examination(max_bytes)
    _say(answers, {})
    for name in json.loads(sys.stdin.read() or "[]"):  # nothing, if nobody is left to ask
        _limit_seconds(seconds)
        try:
            found = {"sha256": examine(Path(name))}
        except InvalidModel as error:
            found = {"refused": str(error)[:MOST_REASON]}
        except MemoryError:
            found = {"refused": "it takes more memory than a model may"}
        _say(answers, found)


class _Examination:
    """Looks at one file after the other."""

    def __init__(self, max_bytes: int) -> None:
        from service.inference import graph_check  # with all that it and the next import
        from service.inference.session import SessionFactory

        self._max_bytes = max_bytes
        self._check_structure = graph_check.check_structure
        self._runtime = SessionFactory("cpu")
        self._models: dict[Path, Model] = {}

    def __call__(self, path: Path) -> str:
        """The SHA-256 of the file's content. Raises ``InvalidModel``, ``MemoryError``."""
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
            raise InvalidModel("the model beside it is not served")
        return hashlib.sha256(content).hexdigest()


def _take_stdout() -> TextIO:
    """Stdout for ourselves: whatever a library prints goes to stderr."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="ascii")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    return answers


def _limit(max_bytes: int) -> None:
    """Bound what this process may take, so that others need not suffer."""
    if sys.platform == "win32":
        return
    import resource

    os.nice(10)
    memory = MEMORY + COPIES * max_bytes
    for what, most in (
        (resource.RLIMIT_AS, memory),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 64 * 1024),  # stderr
    ):
        _, hard = resource.getrlimit(what)
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(what, (most, most))
    # Where the machine has less memory than that, the kernel ends this process, and no other.
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")


def _limit_seconds(seconds: float) -> None:
    """From now on; by this the process ends even where nobody is left to end it."""
    if sys.platform == "win32":
        return
    import resource

    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (math.ceil(time.process_time() + seconds) + 1, hard))


def _say(answers: TextIO, what: dict[str, str]) -> None:
    answers.write(json.dumps(what) + "\n")
    answers.flush()


if __name__ == "__main__":
    main()
