"""A Ray cluster of two nodes on this machine, with the service on it; all tests share it."""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from benchmarks.cluster import Nodes, replicas_metrics, running_nodes, two_node_config
from benchmarks.load import Load, Policy, request
from service.core import api_keys
from tests.helpers.ports import free_port
from tests.helpers.server import MODELS
from tests.helpers.waiting import wait_until

NEW_NETWORK = 0x40000000
"""CLONE_NEWNET."""
SECRET, ENTRY = api_keys.make("lab", None)
SLOW, SLOW_ENTRY = api_keys.make("slow", 1)
HEADERS = {"Authorization": f"Bearer {SECRET}"}


@pytest.fixture(scope="package")
def own_network() -> Iterator[None]:
    """Private network for this thread and its child processes, if the kernel permits it.

    Ray listens on all addresses, whatever its options.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    before = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    with contextlib.closing(os.fdopen(before)):
        apart = libc.unshare(NEW_NETWORK) == 0
        if apart:
            subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
        yield
        if apart:
            assert libc.setns(before, NEW_NETWORK) == 0


@dataclass
class Cluster:
    """Running cluster with the service; ``store`` is the folder that its models are copied from."""

    nodes: Nodes
    url: str
    store: Path
    client: httpx.Client

    def metrics(self) -> list[str]:
        """``GET /metrics`` of each of the two replicas."""
        return replicas_metrics(self.nodes, HEADERS)

    def load(self) -> Load:
        """Requests for single images over eight connections."""
        body = {"n": 1, "seed": 3, "model": "digits"}
        content = request("/generate?format=png", body, key=SECRET)
        port = httpx.URL(self.url).port
        assert port is not None
        return Load(port, itertools.repeat(content), Policy(connections=8))


@pytest.fixture(scope="package")
def cluster(own_network: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    folder = tmp_path_factory.mktemp("cluster")
    store = folder / "store"
    for model in ("digits/1", "anime-faces/2"):
        shutil.copytree(MODELS / model, store / model)
    (folder / "keys").write_text(f"{ENTRY}\n{SLOW_ENTRY}\n")
    port = free_port()
    variables = {
        "FIGMENT_MODELS": f"file://{store}",
        "FIGMENT_API_KEYS_FILE": str(folder / "keys"),
        "FIGMENT_MAX_WAIT": "30",  # the machine may be slow
        "TMPDIR": str(folder),
    }
    url = f"http://127.0.0.1:{port}"
    with (
        running_nodes(two_node_config(port, variables)) as running,
        httpx.Client(base_url=url, timeout=60, headers=HEADERS) as client,
    ):
        wait_until(lambda: client.get("/readyz").status_code == 200)
        yield Cluster(running, url, store, client)
