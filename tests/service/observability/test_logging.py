"""Logging to a stderr that is not read."""

from __future__ import annotations

import itertools
import subprocess
import sys
from collections.abc import Iterator

import pytest

from service.observability.logging import MAX_QUEUED_LINES
from tests.helpers.server import ROOT

LINES = 2 * MAX_QUEUED_LINES
LOGGER = f"""
import logging, sys
from service.observability.logging import log_to_stderr
log_to_stderr("text")
for number in range({LINES}):
    logging.info("line %d", number)
print("logged", flush=True)
sys.stdin.readline()
logging.info("the last line")
"""


@pytest.fixture
def logger() -> Iterator[subprocess.Popen[str]]:
    """Process that logs ``LINES``, waits for input, and logs another."""
    pipe = subprocess.PIPE
    with subprocess.Popen(
        [sys.executable, "-c", LOGGER], cwd=ROOT, stdin=pipe, stdout=pipe, stderr=pipe, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "logged\n"
        yield process


def test_lines_are_dropped_and_counted_while_stderr_is_not_read(
    logger: subprocess.Popen[str],
) -> None:
    assert logger.stdin is not None
    assert logger.stderr is not None
    first = list(itertools.islice(logger.stderr, MAX_QUEUED_LINES))  # now there is room
    logger.stdin.close()
    *others, report, last = [*first, *logger.stderr]
    assert others == [f"INFO line {number}\n" for number in range(len(others))]
    dropped = LINES - len(others)
    assert report == f"WARNING {dropped} log lines dropped: they came faster than stderr was read\n"
    assert last == "INFO the last line\n"


def test_exit_does_not_wait_for_a_stderr_that_is_not_read(logger: subprocess.Popen[str]) -> None:
    assert logger.stdin is not None
    logger.stdin.close()
    assert logger.wait(20) == 0
