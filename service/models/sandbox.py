"""Model files from strangers, tried out in a process that the service can lose.

What that process does to a file is in ``examination.py``. If it crashes, hangs or takes too much
memory, the file that it was at is refused, and another process goes on with the rest.
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
SECONDS = 60.0
"""That one file may take. The slowest of ours takes a quarter of one."""
MOST_SAID = 65536
"""Bytes that are read of what it wrote to stderr, which may be no more."""
INHERITED = (
    r"PATH|HOME|LANG|LC_\w+|TZ|TMPDIR|TEMP|TMP|SYSTEMROOT"
    r"|LD_LIBRARY_PATH|DYLD_\w+|VIRTUAL_ENV|PYTHON\w+"
)
"""Variables of the environment that the process gets; ``SYSTEMROOT`` is for Windows."""


@dataclass(frozen=True)
class CheckResult:
    """What came out of looking at a file."""

    path: Path
    sha256: str | None
    """Of the content that was looked at; None if it is refused."""
    reason: str = ""


class ModelSandbox:
    """Has files looked at, one after the other."""

    def __init__(self, max_bytes: int = MAX_BYTES, seconds: float = SECONDS) -> None:
        """``max_bytes``, ``seconds``: what a file may have, and take."""
        self.max_bytes = max_bytes
        self._seconds = seconds
        self._examiner: _SandboxProcess | None = None
        self._closed = False

    def prepare(self) -> None:
        """Start a process, which takes half a second, while other things are done.

        Raises ``StartupError`` where none can be had.
        """
        try:
            self._examiner = _SandboxProcess(self.max_bytes, self._seconds)
        except OSError as error:  # no memory, no place for temporary files
            raise StartupError(f"models cannot be looked at: {error}") from error

    def vet(self, files: Sequence[Path]) -> Iterator[CheckResult]:
        """A verdict on each file, in order, as soon as it is known; a verifier after its model.

        The next files are looked at meanwhile. Raises ``StartupError`` where no process can be had.
        """
        done = 0
        while done < len(files):
            if self._examiner is None:
                self.prepare()
            assert self._examiner is not None
            try:
                self._examiner.begin(files[done:])
                while done < len(files):
                    path = files[done]
                    done += 1
                    found = self._examiner.answer()
                    yield CheckResult(path, found.get("sha256"), _line(found.get("refused", "")))
            except _SandboxDied as error:
                if self._closed:
                    raise StartupError("the service ends") from error
                yield CheckResult(path, None, _line(str(error)))
            finally:
                self._examiner.end()
                self._examiner = None

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
        """End what is under way, from another thread too: to look at a file may take long."""
        self._closed = True
        if (examiner := self._examiner) is not None:
            examiner.kill()


class _SandboxDied(Exception):
    """The process says nothing more, and why."""


class _SandboxProcess:
    """One process, and a thread that reads what it says."""

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
            start_new_session=True,  # what is typed at the service's terminal is not for it
        )
        self._reader = threading.Thread(target=self._read, name="vetting", daemon=True)
        self._reader.start()

    def begin(self, files: Sequence[Path]) -> None:
        """Have it look at these. Raises ``StartupError`` where it is not able to look at any."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError), self._process.stdin as stdin:
            json.dump([str(path.absolute()) for path in files], stdin)
        try:
            self.answer()
        except _SandboxDied as error:
            raise StartupError(f"models cannot be looked at: {error}") from error

    def kill(self) -> None:
        self._process.kill()

    def end(self) -> None:
        self._process.kill()
        self._process.wait()
        self._reader.join()
        self._errors.close()

    def answer(self) -> dict[str, str]:
        """What it says next. Raises ``_SandboxDied``."""
        try:
            line = self._lines.get(timeout=self._seconds)
        except queue.Empty:
            raise _SandboxDied(self._too_long()) from None
        if not line:
            raise _SandboxDied(self._how_it_ended())
        found: dict[str, str] = json.loads(line)
        return found

    def _too_long(self) -> str:
        return f"it does not come to an end within {self._seconds:g} s"

    def _how_it_ended(self) -> str:
        code = self._process.wait()
        self._errors.seek(0)
        said = self._errors.read(MOST_SAID).decode(errors="replace").split("\n")
        last = next((f": {line.strip()[:300]}" for line in reversed(said) if line.strip()), "")
        if -code == getattr(signal, "SIGXCPU", None):
            return self._too_long()
        return f"the process that looked at it {exit_reason(code)}{last}"

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as stdout:
            for line in stdout:
                self._lines.put(line)
        self._lines.put("")


def _line(text: str) -> str:
    """``text`` as one line that can be shown anywhere: it may quote what is in the file."""
    return printable(" ".join(text.split()))


def _environment() -> dict[str, str]:
    """What Python and the libraries need of ours, which may hold secrets; no threads for them."""
    kept = {name: value for name, value in os.environ.items() if re.fullmatch(INHERITED, name)}
    return kept | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
