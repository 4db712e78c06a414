"""Worker processes of a running server: which there are, and when they serve."""

from __future__ import annotations

import contextlib
from pathlib import Path

import httpx
import psutil

from tests.helpers.server import Server
from tests.helpers.waiting import wait_until


def wait_until_ready(server: Server) -> None:
    """Wait for the first worker process: the socket is open before any of them serves."""
    wait_until(lambda: _is_ready(server))


def _is_ready(server: Server) -> bool:
    try:
        return server.client.get("/readyz").status_code == 200
    except httpx.HTTPError:
        return False


def wait_until_all_ready(server: Server, workers: int) -> None:
    """Wait until so many worker processes have started in all."""
    wait_until(lambda: "".join(server.log).count("startup complete") >= workers)


def workers_of(server: Server) -> list[psutil.Process]:
    """Worker processes that run, the oldest first. Excludes multiprocessing's resource tracker."""
    found = []
    for child in psutil.Process(server.process.pid).children():
        with contextlib.suppress(psutil.NoSuchProcess):  # it ended meanwhile, or is a zombie
            if "spawn_main" in " ".join(child.cmdline()) and child.is_running():
                found.append(child)
    return sorted(found, key=psutil.Process.create_time)


def metrics_folders(worker: psutil.Process) -> set[Path]:
    """Folders of the metrics files that the process has mapped."""
    mapped = [Path(each.path) for each in worker.memory_maps()]
    return {path.parent for path in mapped if path.suffix == ".db"}
