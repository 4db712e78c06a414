"""Check all locked packages for known vulnerabilities: ``make audit``.

Exits with 1 if one is known. Passes with a warning if no vulnerability database is reachable.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import requests

# A mirror of PyPI may report no vulnerability for any package. This package has known ones.
PROBE_URL = "https://pypi.org/pypi/jinja2/2.4.1/json"

# The files are complete, so nothing is resolved. --strict: a package missing in the database fails.
AUDIT = (sys.executable, "-m", "pip_audit", "--strict", "--disable-pip", "--progress-spinner=off")


def main(unhashed: str) -> int:
    """Audit ``requirements/*.txt`` and ``unhashed``, a package that is installed without a hash.

    Returns the exit status.
    """
    if reason := _unreachable():
        print(f"NOT AUDITED: no vulnerability database can be reached here ({reason})")
        return 0
    files = sorted(Path(__file__).parent.glob("*.txt"))
    locked = [*AUDIT, "--require-hashes", *(f"--requirement={file}" for file in files)]
    unhashed = unhashed.partition("+")[0]  # a build such as 2.13.0+cpu is listed by its version
    single = [*AUDIT, "--no-deps", "--requirement=/dev/stdin"]
    quiet = {**os.environ, "PIP_AUDIT_LOGLEVEL": "error"}  # without its advice to add a hash
    audits = (
        subprocess.run(locked, check=False),
        subprocess.run(single, check=False, input=unhashed, text=True, env=quiet),
    )
    return int(any(audit.returncode for audit in audits))


def _unreachable() -> str | None:
    """Reason why the database is unreachable; None if it is reachable."""
    try:
        response = requests.get(PROBE_URL, timeout=5)
        response.raise_for_status()
        if not response.json()["vulnerabilities"]:
            return f"{PROBE_URL} lists no vulnerability"
    except (requests.RequestException, LookupError, TypeError) as error:
        return f"{type(error).__name__}: {error}"
    return None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
