"""Reloads as the operator sees them: concurrency, leaks, log and metrics."""

from __future__ import annotations

import hashlib
import os
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import psutil
import pytest

from tests.helpers.reload import answer, fill, place, reload, weights
from tests.helpers.server import Server, serve

pytestmark = pytest.mark.server


def test_repeated_reloads_leak_nothing(server: Server, models: Path) -> None:
    process = psutil.Process(server.process.pid)
    found: list[tuple[int, int, int]] = []
    for turn in range(20):
        if turn % 4 == 0:
            place(models, "tiny", 1, weights(turn))
        assert len(reload(server)["changed"]) == (turn % 4 == 0)
        answer(server)
        found.append((process.num_fds(), process.num_threads(), len(process.children())))
    files, threads, children = map(set, zip(*found[8:], strict=True))
    assert (len(files), children) == (1, {0}), found
    # A model has one thread of its own, or none, as was found to be faster when it was loaded.
    assert max(threads) - min(threads) <= 1, found


def test_concurrent_reload_requests_share_a_reload(server: Server, models: Path) -> None:
    """Clients that wait for it, and clients that disconnect at once."""

    def reloads() -> int:
        return sum("models reloaded:" in line for line in server.log)

    place(models, "tiny", 2, weights(2))  # so that the reload takes a while
    before = reloads()
    address = httpx.URL(server.url)
    for _ in range(60):
        with socket.create_connection((address.host, address.port)) as connection:
            connection.sendall(b"POST /models/reload HTTP/1.1\r\nHost: figment\r\n\r\n")
    with ThreadPoolExecutor(10) as clients:
        reports = list(clients.map(lambda _: reload(server), range(10)))
    assert answer(server)["version"] == 2
    assert all(report["refused"] == [] for report in reports)
    assert 1 <= reloads() - before <= 6


def test_reload_logs_changed_keys_and_aliases(tmp_path: Path) -> None:
    def entry(name: str, key: str) -> str:
        return f"{name}:sha256:{hashlib.sha256(key.encode()).hexdigest()}\n"

    models, keys = fill(tmp_path / "models"), tmp_path / "keys"
    place(models, "tiny", 2, weights(2))
    (models / "tiny" / "aliases.json").write_text('{"stable": 1, "default": 1}')
    keys.write_text(entry("slow", "1") + entry("team", "2"))
    with serve("--models", str(models), "--api-keys-file", str(keys)) as server:
        server.client.headers["Authorization"] = "Bearer 2"
        (models / "tiny" / "aliases.json").write_text('{"stable": 2, "default": 1}')
        keys.write_text(entry("team", "2") + entry("new", "3"))
        reload(server)
        keys.write_text(entry("team", "4") + entry("new", "3"))
        place(models, "tiny", 3, weights(3))
        (models / "tiny" / "aliases.json").write_text('{"stable": 2, "canary": 3}')
        reload(server)
    lines = [line.strip() for line in server.log if "reloaded" in line or "API keys" in line]
    for line, said in zip(
        lines,
        (
            "INFO API keys: added new; removed slow",
            "INFO models reloaded: tiny: stable 1 -> 2",
            "INFO API keys: changed team",
            "INFO models reloaded: added tiny/3; tiny: canary none -> 3, default 1 -> none",
        ),
        strict=True,
    ):
        assert line.startswith(said)


def test_failed_reload_sets_the_metric_until_one_succeeds(tmp_path: Path) -> None:
    models, keys = fill(tmp_path / "models"), tmp_path / "keys"
    keys.write_text("team:key-of-the-team")
    with serve("--models", str(models), "--api-keys-file", str(keys)) as server:
        server.client.headers["Authorization"] = "Bearer key-of-the-team"

        def failed() -> bool:
            reload(server)
            return "\nfigment_reload_failed 1.0\n" in server.client.get("/metrics").text

        assert not failed()
        for content in ("", "no key", "twice:a\ntwice:b"):
            keys.write_text(content)
            assert failed()
        keys.unlink()
        assert failed()
        os.mkfifo(keys)  # opening a pipe would block
        assert failed()
        keys.unlink()
        keys.write_text("team:key-of-the-team")
        assert not failed()
        models.rename(tmp_path / "away")
        assert failed()
        models.mkdir()
        assert failed()
        models.rmdir()
        (tmp_path / "away").rename(models)
        assert not failed()
