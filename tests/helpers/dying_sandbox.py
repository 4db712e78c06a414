"""The sandbox's process, which kills itself at each version 2."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from service.models import sandbox_worker

PROGRAM = "tests.helpers.dying_sandbox"


class DyingCheck(sandbox_worker.FileCheck):
    def __call__(self, path: Path) -> str:
        if path.parent.name == "2":
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__call__(path)


if __name__ == "__main__":
    sandbox_worker.FileCheck = DyingCheck  # type: ignore[misc]
    sandbox_worker.main()
