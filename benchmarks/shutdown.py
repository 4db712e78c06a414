"""Requests lost when the service shuts down, and when a worker process is killed.

    python -m benchmarks.shutdown [--drains 100] [--kills 20] [--model FILE]

Needs Linux, the free port 8765, and PyTorch unless ``--model`` is given; takes about ten minutes on
two cores. Exits with 1 if a request was lost.

Drains: the service gets SIGTERM under continuous load, over keep-alive and new connections; half
of the times it has two workers. A request is lost if it was sent over a connection that its client
had not seen closed, and got no complete response.

Kills: one of two workers gets SIGKILL. Its connections are cut, and their clients retry. A request
is lost if no retry returns the same bytes as before, or if a connection to the other worker was
cut.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
import numpy as np
import psutil
import uvloop

from benchmarks.load import (
    Connection,
    ConnectionCut,
    ConnectionRefused,
    Response,
    percentile,
    request,
)
from benchmarks.serve import PORTS, PYTHON, server, untrained_model
from service.client import Figment
from service.errors import ClientError

PORT = PORTS["figment"]
KEEP_ALIVE_CLIENTS, NEW_CONNECTION_CLIENTS, PAUSING_CLIENTS = 12, 6, 6
"""Clients with keep-alive connections, with a new connection per request, and with pauses."""
MAX_PAUSE_SECONDS = 0.5
REJECTED_PAUSE_SECONDS = 0.05
"""Pause after a rejected request that is not retried."""
RECONNECT_PAUSE_SECONDS = 0.05
"""Pause after a refused connection, and between checks of the worker processes."""
REQUESTS = [{"n": n, "seed": seed} for seed, n in enumerate((1, 3, 8, 16))]
REQUESTS_PER_CONNECTION = 20
"""Few, so that connections spread over the workers, and a replacement gets some."""
KILLS_PER_SERVICE = 4
"""After more, the restart backoff grows long."""
REQUEST_TIMEOUT_SECONDS = 60.0
"""A request without response after all its retries counts as lost."""
ANSWERED, REJECTED = "answered", "rejected"
"""Outcomes of requests that are not lost."""


class Clients:
    """Concurrent clients of one service."""

    def __init__(self) -> None:
        self.outcomes: Counter[str] = Counter()
        self.cut_ports: list[int] = []
        """Local ports of cut connections."""
        self.longest = 0.0
        """Longest time from the first try of a request to its response, in seconds."""
        self.stopped = False
        self.expected: list[bytes] = []
        """Expected response bodies of ``REQUESTS``."""
        self._random = random.Random(7)

    async def record_expected(self) -> None:
        """Fill ``expected`` from the running service."""
        for body in REQUESTS:
            content = request("/generate", body, close=True)
            while True:
                # The server closes an idle connection before a long Retry-After has passed.
                connection = await Connection.open(PORT)
                response = await connection.exchange(content)
                if response.status == 200:
                    break
                await asyncio.sleep(response.retry_after)
            self.expected.append(response.body)

    def start(self, *, retry: bool) -> list[asyncio.Task[None]]:
        """Start all clients. With ``retry`` they retry and reconnect until they are stopped."""
        return [
            *(
                asyncio.create_task(self._client(REQUESTS_PER_CONNECTION, retry))
                for _ in range(KEEP_ALIVE_CLIENTS)
            ),
            *(asyncio.create_task(self._client(1, retry)) for _ in range(NEW_CONNECTION_CLIENTS)),
            *(
                asyncio.create_task(self._client(REQUESTS_PER_CONNECTION, retry, pauses=True))
                for _ in range(PAUSING_CLIENTS)
            ),
        ]

    async def _client(self, per_connection: int, retry: bool, *, pauses: bool = False) -> None:
        while not self.stopped:
            try:
                connection = await Connection.open(PORT)
            except ConnectionRefused:
                if not retry:
                    return
                self.outcomes["connection refused"] += 1
                await asyncio.sleep(2 * RECONNECT_PAUSE_SECONDS)
                continue
            for _ in range(per_connection):
                if pauses:
                    await asyncio.sleep(self._random.uniform(0, MAX_PAUSE_SECONDS))
                if connection.closed or self.stopped:
                    break  # closed before the request was sent: not lost
                await self._send_one(connection, retry)
            connection.close()

    async def _send_one(self, connection: Connection, retry: bool) -> None:
        """Send one request; with ``retry``, repeat it over new connections while it is cut."""
        number = self._random.randrange(len(REQUESTS))
        content = request("/generate", REQUESTS[number])
        started = time.perf_counter()
        while time.perf_counter() < started + REQUEST_TIMEOUT_SECONDS:
            try:
                response = await connection.exchange(content)
            except (ConnectionCut, TimeoutError) as error:
                self.outcomes["cut" if isinstance(error, ConnectionCut) else "timeout"] += 1
                self.cut_ports.append(connection.port)
                if not retry:
                    return
            else:
                outcome = self._outcome(number, response)
                self.outcomes[outcome] += 1
                self.longest = max(self.longest, time.perf_counter() - started)
                if outcome != REJECTED:
                    return
                if not retry:
                    await asyncio.sleep(REJECTED_PAUSE_SECONDS)
                    return
                await asyncio.sleep(response.retry_after)
            while connection.closed:
                try:
                    connection = await Connection.open(PORT)
                except ConnectionRefused:
                    await asyncio.sleep(RECONNECT_PAUSE_SECONDS)
        self.outcomes["retries exhausted"] += 1

    def _outcome(self, number: int, response: Response) -> str:
        if response.status == 429:
            return REJECTED
        if response.status != 200:
            return f"status {response.status}"
        return ANSWERED if response.body == self.expected[number] else "other bytes"


async def drain(process: psutil.Process) -> tuple[Clients, float]:
    """Shut down under load; return the clients, and the seconds from the signal to the exit."""
    clients = Clients()
    await clients.record_expected()
    tasks = clients.start(retry=False)
    await asyncio.sleep(random.uniform(0.3, 0.8))
    process.terminate()
    started = time.perf_counter()
    try:
        status = await asyncio.to_thread(process.wait, REQUEST_TIMEOUT_SECONDS)
        if status != 0:
            clients.outcomes[f"exit status {status}"] += 1
    except psutil.TimeoutExpired:
        clients.outcomes["no exit"] += 1
    seconds = time.perf_counter() - started
    await asyncio.gather(*tasks)
    return clients, seconds


def drains(command: list[str], rounds: int) -> int:
    """Measure and report all drains; return the number of lost requests."""
    lost = 0
    print(
        f"{'':<12}{'drains':>8}{'answered':>10}{'rejected':>9}{'lost':>6}{'stop, s: p50':>13}"
        f"{'max':>6}"
    )
    by_workers: dict[int, list[tuple[Clients, float]]] = {1: [], 2: []}
    for number in range(rounds):
        workers = 1 + number % 2
        with server("figment", [*command, "--workers", str(workers)]) as (process, _):
            by_workers[workers].append(uvloop.run(drain(process)))
    for workers, results in by_workers.items():
        if not results:
            continue
        total = sum((clients.outcomes for clients, _ in results), Counter())
        bad = {kind: count for kind, count in total.items() if kind not in (ANSWERED, REJECTED)}
        lost += sum(bad.values())
        times = [seconds for _, seconds in results]
        print(
            f"{workers} {'worker' if workers == 1 else 'workers':<10}{len(times):8}"
            f"{total[ANSWERED]:10}{total[REJECTED]:9}{sum(bad.values()):6}"
            f"{percentile(times, 0.5):13.1f}{max(times):6.1f}  {bad or ''}"
        )
    return lost


class WorkerProcesses:
    """Worker processes of a service with two of them."""

    def __init__(self, parent: psutil.Process) -> None:
        self._parent = parent

    def alive(self) -> list[psutil.Process]:
        """Worker processes, without the resource tracker of multiprocessing."""
        return [
            child
            for child in self._parent.children()
            if child.status() != psutil.STATUS_ZOMBIE and "spawn_main" in " ".join(child.cmdline())
        ]

    async def both_serving(self) -> list[psutil.Process]:
        """Wait until each of two workers has clients, and return both."""
        while True:
            workers = self.alive()
            if len(workers) == 2 and all(_client_ports(worker) for worker in workers):
                return workers
            await asyncio.sleep(0.1)


def _client_ports(worker: psutil.Process) -> set[int]:
    """Local ports of the clients connected to a worker."""
    return {
        connection.raddr.port
        for connection in worker.net_connections("tcp")
        if connection.status == psutil.CONN_ESTABLISHED
    }


class PythonClient:
    """Loop over ``service.client``, which retries by itself."""

    def __init__(self) -> None:
        self.outcomes: Counter[str] = Counter()
        self.stopped = False
        self._figment = Figment(f"http://127.0.0.1:{PORT}", patience=REQUEST_TIMEOUT_SECONDS)
        self._expected = self._figment.generate(32, seed=9).images

    def run(self) -> None:
        """Request the same images until ``stopped``."""
        while not self.stopped:
            try:
                images = self._figment.generate(32, seed=9).images
            except ClientError as error:
                self.outcomes[str(error)] += 1
            else:
                same = np.array_equal(images, self._expected)
                self.outcomes[ANSWERED if same else "other bytes"] += 1


@dataclass
class Kills:
    """Outcomes of all kills."""

    outcomes: Counter[str] = field(default_factory=Counter)
    replacement_seconds: list[float] = field(default_factory=list)
    """Time from each kill until two workers had clients again."""
    unexpected_cuts: int = 0
    """Cut connections of workers that were not killed."""
    longest: float = 0.0
    """Longest time from the first try of a request to its response, in seconds."""

    @property
    def lost(self) -> int:
        bad = {*self.outcomes} - {ANSWERED, REJECTED, "cut"}
        return self.unexpected_cuts + sum(self.outcomes[outcome] for outcome in bad)

    async def measure(self, process: psutil.Process, count: int) -> None:
        """Kill ``count`` workers of one service, one after another."""
        workers = WorkerProcesses(process)
        clients, python_client = Clients(), PythonClient()
        await clients.record_expected()
        tasks: list[Any] = clients.start(retry=True)
        tasks.append(asyncio.create_task(asyncio.to_thread(python_client.run)))
        killed_ports: set[int] = set()
        for number in range(count):
            serving = await workers.both_serving()
            await asyncio.sleep(random.uniform(0.2, 0.6))
            victim = serving[number % 2]
            victim.send_signal(signal.SIGSTOP)  # so that its set of clients stays fixed
            killed_ports |= _client_ports(victim)
            victim.kill()
            started = time.perf_counter()
            while len(alive := workers.alive()) < 2 or victim in alive:
                await asyncio.sleep(RECONNECT_PAUSE_SECONDS)
            await workers.both_serving()
            self.replacement_seconds.append(time.perf_counter() - started)
        clients.stopped = python_client.stopped = True
        await asyncio.gather(*tasks)
        self.outcomes += clients.outcomes + python_client.outcomes
        self.unexpected_cuts += sum(port not in killed_ports for port in clients.cut_ports)
        self.longest = max(self.longest, clients.longest)

    def report(self) -> None:
        times = self.replacement_seconds
        print(
            f"\n{'kills':>8}{'answered':>10}{'rejected':>9}{'cut':>6}{'of others':>11}{'lost':>6}"
            f"{'longest, s':>12}{'replaced, s: p50':>18}{'max':>6}"
        )
        print(
            f"{len(times):8}{self.outcomes[ANSWERED]:10}{self.outcomes[REJECTED]:9}"
            f"{self.outcomes['cut']:6}{self.unexpected_cuts:11}{self.lost:6}{self.longest:12.1f}"
            f"{percentile(times, 0.5):18.1f}{max(times):6.1f}"
            f"  {dict(self.outcomes) if self.lost else ''}"
        )


@click.command()
@click.option("--model", type=click.Path(exists=True, path_type=Path), help="NAME/1/model.onnx")
@click.option("--drains", "drain_count", default=100, show_default=True, help="Shutdowns.")
@click.option("--kills", "kill_count", default=20, show_default=True, help="Killed workers.")
def main(model: Path | None, drain_count: int, kill_count: int) -> None:
    """Shut the service down and kill its workers under load, and count lost requests."""
    lost = 0
    kills = Kills()
    with tempfile.TemporaryDirectory() as folder:
        file = model or untrained_model(Path(folder))
        command = [PYTHON, "-m", "service", "--models", str(file.parent.parent.parent)]
        command += ["--port", str(PORT)]
        if drain_count:
            lost += drains(command, drain_count)
        while (remaining := kill_count - len(kills.replacement_seconds)) > 0:
            with server("figment", [*command, "--workers", "2"]) as (process, _):
                uvloop.run(kills.measure(process, min(remaining, KILLS_PER_SERVICE)))
    if kill_count:
        kills.report()
        lost += kills.lost
    print(f"\n{'MISSED' if lost else 'met   '}  {lost} lost; load average {os.getloadavg()[0]:.1f}")
    sys.exit(lost > 0)


if __name__ == "__main__":
    main()
