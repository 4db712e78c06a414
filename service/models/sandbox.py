"""Checks of untrusted model files in a child process that may die.

``sandbox_worker.py`` runs in that process. If it crashes, hangs or exceeds its memory, the file
in progress is rejected, and a new process continues with the rest.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import queue
import re
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from service.core.process import exit_reason
from service.core.text import printable
from service.errors import InvalidModel, StartupError

MAX_BYTES = 512 * 1024**2
MAX_SECONDS = 60.0
"""Time limit of one file. The slowest shipped model takes 0.25 s."""
START_SECONDS = 60.0
"""Time limit for the start of the process, which loads ONNX Runtime."""
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
        self._process: _SandboxProcess | None = None
        self._closed = False

    def prepare(self) -> None:
        """Start the process early, as that takes 0.5 s. Raises ``StartupError``."""
        try:
            self._process = _SandboxProcess(self.max_bytes, self._seconds)
        except OSError as error:  # out of memory, or no space for temporary files
            raise StartupError(f"the model sandbox does not start: {error}") from error

    def check(self, files: Sequence[Path]) -> Iterator[CheckResult]:
        """Yield a result for each file, in order; a verifier must come after its model.

        The process works ahead of the caller. Raises ``StartupError`` if it does not start.
        """
        done = 0
        while done < len(files):
            if self._process is None:
                self.prepare()
            assert self._process is not None
            try:
                self._process.begin(files[done:])
                while done < len(files):
                    path = files[done]
                    done += 1
                    answer = self._process.next_answer()
                    yield CheckResult(
                        path, answer.get("sha256"), one_line(answer.get("refused", ""))
                    )
            except _SandboxDied as error:
                if self._closed:
                    raise StartupError("the service is shutting down") from error
                yield CheckResult(path, None, one_line(str(error)))
            finally:
                self._process.end()
                self._process = None

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


class _SandboxDied(Exception):
    """The process ended or exceeded its time; the message is the reason."""


class _SandboxProcess:
    """Child process, and a thread that reads its answers."""

    def __init__(self, max_bytes: int, seconds: float) -> None:
        self._seconds = seconds
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115, closed by end()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "service.models.sandbox_worker", str(max_bytes), str(seconds)],
            cwd=Path(__file__).parents[2],
            env=_environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            start_new_session=True,  # Ctrl-C in the service's terminal must not reach it
        )
        self._reader = threading.Thread(target=self._read, name="sandbox", daemon=True)
        self._reader.start()

    def begin(self, files: Sequence[Path]) -> None:
        """Send the list of files. Raises ``StartupError`` if the process does not get ready."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError), self._process.stdin as stdin:
            json.dump([str(path.absolute()) for path in files], stdin)
        try:
            self._wait_for_line(START_SECONDS)
        except _SandboxDied as error:
            raise StartupError(f"the model sandbox does not start: {error}") from error

    def kill(self) -> None:
        self._process.kill()

    def end(self) -> None:
        """Kill the process and release its resources."""
        self._process.kill()
        self._process.wait()
        self._reader.join()
        self._errors.close()

    def next_answer(self) -> dict[str, str]:
        """Wait for the answer on the next file. Raises ``_SandboxDied``."""
        answer: dict[str, str] = json.loads(self._wait_for_line(self._seconds))
        return answer

    def _wait_for_line(self, seconds: float) -> str:
        try:
            line = self._lines.get(timeout=seconds)
        except queue.Empty:
            raise _SandboxDied(f"the check did not finish within {seconds:g} s") from None
        if not line:
            raise _SandboxDied(self._exit_reason())
        return line

    def _exit_reason(self) -> str:
        code = self._process.wait()
        self._errors.seek(0)
        stderr = self._errors.read(MAX_STDERR_BYTES).decode(errors="replace").split("\n")
        last = next((f": {line.strip()[:300]}" for line in reversed(stderr) if line.strip()), "")
        if -code == getattr(signal, "SIGXCPU", None):
            return f"the check did not finish within {self._seconds:g} s"
        return f"the sandbox process {exit_reason(code)}{last}"

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as stdout:
            for line in stdout:
                self._lines.put(line)
        self._lines.put("")


def one_line(text: str) -> str:
    """``text`` as one printable line: it may quote the file, and goes to logs and clients."""
    return printable(" ".join(text.split()))


def _environment() -> dict[str, str]:
    """Minimal environment for the sandbox: no secrets, one thread per library."""
    kept = {name: value for name, value in os.environ.items() if re.fullmatch(INHERITED, name)}
    return kept | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
