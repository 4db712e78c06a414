"""Checks of untrusted model files in a child process that may die.

``sandbox_worker.py`` runs in that process. If it crashes, hangs or exceeds its memory, the file
in progress is rejected, and a new process continues with the rest.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from service.core.process import exit_reason
from service.core.text import printable
from service.errors import InvalidModel, StartupError

WORKER = "service.models.sandbox_worker"
MAX_BYTES = 512 * 1024**2
MAX_SECONDS = 60.0
"""Time limit of one file. The slowest shipped model takes 0.25 s."""
MAX_STDERR_BYTES = 65536
"""As much as ``sandbox_worker`` may write."""
INHERITED = (
    r"PATH|HOME|LANG|LC_\w+|TZ|TMPDIR|TEMP|TMP|SYSTEMROOT"
    r"|LD_LIBRARY_PATH|DYLD_\w+|VIRTUAL_ENV|PYTHON\w+"
)
"""Environment variables of the process; ``SYSTEMROOT`` is for Windows."""


@dataclass(frozen=True)
class CheckResult:
    """Result of the check of one file."""

    path: Path
    sha256: str | None
    """Hash of the content that was checked; None if the file is rejected."""
    reason: str = ""
    """Reason for the rejection, one printable line."""


class ModelSandbox:
    """Checks model files one after the other, each within a size and a time limit."""

    def __init__(self, max_bytes: int = MAX_BYTES, seconds: float = MAX_SECONDS) -> None:
        self.max_bytes = max_bytes
        self._seconds = seconds
        self._process: subprocess.Popen[str] | None = None
        self._failure = ""
        """Why the last process ended."""
        self._closed = False

    def prepare(self) -> None:
        """Start the process early, as that takes 0.5 s. Raises ``StartupError``."""
        try:
            self._process = self._start()
        except OSError as error:  # out of memory, or no space for temporary files
            raise StartupError(f"the model sandbox does not start: {error}") from error
        if self._closed:  # meanwhile, on another thread
            self._process.kill()

    def check(self, files: Sequence[Path]) -> Generator[CheckResult]:
        """Results for the files, in order, as they come; a verifier must come after its model.

        Raises ``StartupError`` if the process does not start.
        """
        rest = deque(files)
        while rest:
            if self._process is None:
                self.prepare()
            for answer in self._answers(rest):
                reason = one_line(answer.get("refused", ""))
                yield CheckResult(rest.popleft(), answer.get("sha256"), reason)
            if rest:
                yield CheckResult(rest.popleft(), None, one_line(self._failure))

    def checked_content(self, result: CheckResult) -> bytes:
        """Content of the file that was checked. Raises ``InvalidModel`` if rejected or changed."""
        from service.inference.model import read_file  # loads ONNX Runtime

        if result.sha256 is None:
            raise InvalidModel(result.reason)
        content = read_file(result.path, self.max_bytes)
        if hashlib.sha256(content).hexdigest() != result.sha256:
            raise InvalidModel("changed while it was loaded; put files in place by renaming them")
        return content

    def close(self) -> None:
        """Kill the process, from any thread, so that shutdown does not wait for a check."""
        self._closed = True
        if (process := self._process) is not None:
            process.kill()

    def _start(self) -> subprocess.Popen[str]:
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115, closed by _run()
        return subprocess.Popen(
            [sys.executable, "-m", WORKER, str(self.max_bytes), str(self._seconds)],
            cwd=Path(__file__).parents[2],
            env=_environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            text=True,
            start_new_session=True,  # Ctrl-C in the service's terminal must not reach it
        )

    def _answers(self, files: Iterable[Path]) -> Iterator[dict[str, str]]:
        """Have the process check ``files``; sets ``_failure`` when it ends."""
        assert self._process is not None
        paths = json.dumps([str(path.absolute()) for path in files])
        answered = False
        with self._stderr as stderr, self._process as process:
            assert process.stdin is not None and process.stdout is not None
            try:
                with contextlib.suppress(BrokenPipeError):
                    process.stdin.write(paths)
                    process.stdin.close()
                for line in process.stdout:
                    if answered and line.endswith("\n"):  # otherwise it was cut
                        yield json.loads(line)
                    answered = True
            finally:
                process.kill()
                self._process = None
            process.wait()
            self._failure = self._exit_reason(process.returncode, stderr)
        if self._closed:
            raise StartupError("the service is shutting down")
        if not answered:
            raise StartupError(f"the model sandbox does not start: {self._failure}")

    def _exit_reason(self, code: int, stderr: IO[bytes]) -> str:
        if -code == getattr(signal, "SIGALRM", None):
            return f"the check did not finish within {self._seconds:g} s"
        stderr.seek(0)
        lines = stderr.read(MAX_STDERR_BYTES).decode(errors="replace").split("\n")
        last = next((f": {line.strip()[:300]}" for line in reversed(lines) if line.strip()), "")
        return f"the sandbox process {exit_reason(code)}{last}"


def one_line(text: str) -> str:
    """``text`` as one printable line: it may quote the file, and goes to logs and clients."""
    return printable(" ".join(text.split()))


def _environment() -> dict[str, str]:
    """Minimal environment for the sandbox: no secrets, one thread per library."""
    kept = {name: value for name, value in os.environ.items() if re.fullmatch(INHERITED, name)}
    return kept | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
