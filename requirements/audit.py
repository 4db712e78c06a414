"""Look every locked package up among the known vulnerabilities: ``make audit``.

Fails where one is known. Where the database cannot be asked, says so in a line, and passes.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import requests

# A mirror of PyPI may answer as if nothing were wrong with anything. A database knows this one.
KNOWN = "https://pypi.org/pypi/jinja2/2.4.1/json"

# The files are complete, so nothing is resolved. What the database does not know is a failure too.
AUDIT = (sys.executable, "-m", "pip_audit", "--strict", "--disable-pip", "--progress-spinner=off")


def main(unhashed: str) -> int:
    """Audit ``requirements/*.txt`` and the package that is installed beside them without a hash."""
    if reason := _unreachable():
        print(f"NOT AUDITED: no vulnerability database can be reached here ({reason})")
        return 0
    files = sorted(Path(__file__).parent.glob("*.txt"))
    locked = [*AUDIT, "--require-hashes", *(f"--requirement={file}" for file in files)]
    unhashed = unhashed.partition("+")[0]  # a build, as 2.13.0+cpu, is known by its version
    single = [*AUDIT, "--no-deps", "--requirement=/dev/stdin"]
    quiet = {**os.environ, "PIP_AUDIT_LOGLEVEL": "error"}  # it would recommend a hash
    audits = (
        subprocess.run(locked, check=False),
        subprocess.run(single, check=False, input=unhashed, text=True, env=quiet),
    )
    return int(any(audit.returncode for audit in audits))


def _unreachable() -> str | None:
    """Why the database cannot be asked; None where it can."""
    try:
        answer = requests.get(KNOWN, timeout=5)
        answer.raise_for_status()
        if not answer.json()["vulnerabilities"]:
            return f"{KNOWN} knows of no vulnerability"
    except (requests.RequestException, LookupError, TypeError) as error:
        return f"{type(error).__name__}: {error}"
    return None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
