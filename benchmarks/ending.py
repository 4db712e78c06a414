"""Requests lost when the service shuts down, and when a worker process is killed.

    python -m benchmarks.ending [--drains 100] [--kills 20] [--model FILE]

Drains: the service gets SIGTERM under continuous load, over keep-alive and new connections; half
of the times it has two workers. A request is lost if it was sent over a connection that its client
had not seen closed, and got no complete response.

Kills: one of two workers gets SIGKILL. Its connections are cut, and their clients retry. A request
is lost if no retry returns the same bytes as before, or if a connection to the other worker was
cut.

Exits with 1 if anything was lost.
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

from benchmarks.callers import Answer, Connection, Cut, Refused, percentile, request
from benchmarks.serve import PORTS, PYTHON, server, untrained
from service.client import Figment
from service.errors import ClientError

PORT = PORTS["figment"]
KEPT, FRESH, PAUSING = 12, 6, 6
"""Clients: with keep-alive connections, with a new one per request, and with pauses."""
LONGEST_PAUSE = 0.5
PAUSE = 0.05
"""Seconds; ``PAUSE`` is the pause after a rejected request."""
REQUESTS = [{"n": n, "seed": seed} for seed, n in enumerate((1, 3, 8, 16))]
PER_CONNECTION = 20
"""Requests per connection, so that workers share the load."""
OF_ONE = 4
"""Workers killed per service; after more, the restart backoff grows long."""
GIVEN_UP = 60.0
"""Seconds after which a request counts as lost."""


class Callers:
    """Clients of one service; ``counted`` holds the outcomes of their requests."""

    def __init__(self) -> None:
        self.counted: Counter[str] = Counter()
        self.cuts: list[int] = []
        """Local ports of cut connections."""
        self.longest = 0.0
        """Longest time from the first try of a request to its response, in seconds."""
        self.over = False
        self.expected: list[bytes] = []
        """Expected response bodies of ``REQUESTS``."""
        self._random = random.Random(7)

    async def learn(self) -> None:
        connection = await Connection.open(PORT)
        for body in REQUESTS:
            while (answer := await connection.exchange(request("/generate", body))).status != 200:
                await asyncio.sleep(answer.retry_after)
            self.expected.append(answer.body)
        connection.close()

    def start(self, *, again: bool) -> list[asyncio.Task[None]]:
        """``again``: clients retry after a cut, until they are stopped."""
        most = [PER_CONNECTION] * KEPT + [1] * FRESH + [PER_CONNECTION] * PAUSING
        return [
            asyncio.create_task(self._send_requests(each, again, pauses=place >= KEPT + FRESH))
            for place, each in enumerate(most)
        ]

    async def _send_requests(self, most: int, again: bool, *, pauses: bool) -> None:
        while not self.over:
            try:
                connection = await Connection.open(PORT)
            except Refused:
                if not again:
                    return
                self.counted["refused a connection"] += 1
                await asyncio.sleep(0.1)
                continue
            for _ in range(most):
                if pauses:
                    await asyncio.sleep(self._random.uniform(0, LONGEST_PAUSE))
                if connection.closed or self.over:
                    break  # seen before the request was sent
                await self._one(connection, again)
            connection.close()

    async def _one(self, connection: Connection, again: bool) -> None:
        """Send one request, and retry over new connections while it is cut."""
        number = self._random.randrange(len(REQUESTS))
        content = request("/generate", REQUESTS[number])
        started = time.perf_counter()
        while time.perf_counter() < started + GIVEN_UP:
            try:
                answer = await connection.exchange(content)
            except (Cut, TimeoutError) as error:
                self.counted["cut" if isinstance(error, Cut) else "not answered"] += 1
                self.cuts.append(connection.port)
                if not again:
                    return
            else:
                kind = self._judge(number, answer)
                self.counted[kind] += 1
                self.longest = max(self.longest, time.perf_counter() - started)
                if kind != "told to come back":
                    return
                if not again:
                    await asyncio.sleep(PAUSE)
                    return
                await asyncio.sleep(answer.retry_after)
            while connection.closed:
                try:
                    connection = await Connection.open(PORT)
                except Refused:
                    await asyncio.sleep(0.05)
        self.counted["given up"] += 1

    def _judge(self, number: int, answer: Answer) -> str:
        if answer.status == 429:
            return "told to come back"
        if answer.status != 200:
            return f"status {answer.status}"
        return "answered" if answer.body == self.expected[number] else "other bytes"


GOOD = ("answered", "told to come back")


async def drain(process: psutil.Process) -> tuple[Callers, float]:
    """Outcomes of one shutdown, and the seconds from the signal to the exit."""
    callers = Callers()
    await callers.learn()
    tasks = callers.start(again=False)
    await asyncio.sleep(random.uniform(0.3, 0.8))
    process.terminate()
    started = time.perf_counter()
    try:
        status = await asyncio.to_thread(process.wait, GIVEN_UP)
        if status != 0:
            callers.counted[f"ended with status {status}"] += 1
    except psutil.TimeoutExpired:
        callers.counted["did not end"] += 1
    seconds = time.perf_counter() - started
    await asyncio.gather(*tasks)
    return callers, seconds


def drains(command: list[str], rounds: int) -> int:
    """Number of lost requests."""
    lost = 0
    print(
        f"{'':<12}{'drains':>8}{'answered':>10}{'refused':>9}{'lost':>6}{'end, s: p50':>13}"
        f"{'max':>6}"
    )
    found: dict[int, list[tuple[Callers, float]]] = {1: [], 2: []}
    for number in range(rounds):
        workers = 1 + number % 2
        with server("figment", [*command, "--workers", str(workers)]) as (process, _):
            found[workers].append(uvloop.run(drain(process)))
    for workers, all_of_them in found.items():
        if not all_of_them:
            continue
        total = sum((callers.counted for callers, _ in all_of_them), Counter())
        bad = {kind: count for kind, count in total.items() if kind not in GOOD}
        lost += sum(bad.values())
        times = [seconds for _, seconds in all_of_them]
        print(
            f"{workers} {'worker' if workers == 1 else 'workers':<10}{len(times):8}"
            f"{total['answered']:10}{total['told to come back']:9}{sum(bad.values()):6}"
            f"{percentile(times, 0.5):13.1f}{max(times):6.1f}  {bad or ''}"
        )
    return lost


class Workers:
    """Worker processes of a service with two."""

    def __init__(self, supervisor: psutil.Process) -> None:
        self._supervisor = supervisor

    def all(self) -> list[psutil.Process]:
        """Worker processes, without the resource tracker of multiprocessing."""
        return [
            child
            for child in self._supervisor.children()
            if child.status() != psutil.STATUS_ZOMBIE and "spawn_main" in " ".join(child.cmdline())
        ]

    async def both_serve(self) -> list[psutil.Process]:
        """Wait until each worker has clients."""
        while True:
            found = self.all()
            if len(found) == 2 and all(_ports(worker) for worker in found):
                return found
            await asyncio.sleep(0.1)


def _ports(worker: psutil.Process) -> set[int]:
    """Local ports of the clients connected to a worker."""
    return {
        connection.raddr.port
        for connection in worker.net_connections("tcp")
        if connection.status == psutil.CONN_ESTABLISHED
    }


class Client:
    """Loop of ``service.client``, which retries by itself."""

    def __init__(self) -> None:
        self.counted: Counter[str] = Counter()
        self.over = False
        self._figment = Figment(f"http://127.0.0.1:{PORT}", patience=GIVEN_UP)
        self._expected = self._figment.generate(32, seed=9).images

    def go_on(self) -> None:
        while not self.over:
            try:
                images = self._figment.generate(32, seed=9).images
            except ClientError as error:
                self.counted[str(error)] += 1
            else:
                same = np.array_equal(images, self._expected)
                self.counted["answered" if same else "other bytes"] += 1


@dataclass
class Kills:
    """Outcomes of all kills."""

    counted: Counter[str] = field(default_factory=Counter)
    times: list[float] = field(default_factory=list)
    """Seconds until two workers had clients again."""
    elsewhere: int = 0
    """Cut connections of the worker that was not killed."""
    longest: float = 0.0

    @property
    def lost(self) -> int:
        kinds = {*self.counted} - {*GOOD, "cut"}
        return self.elsewhere + sum(self.counted[kind] for kind in kinds)

    async def go(self, process: psutil.Process, rounds: int) -> None:
        """Kill this many workers of one service, one after another."""
        workers = Workers(process)
        callers, client = Callers(), Client()
        await callers.learn()
        tasks: list[Any] = callers.start(again=True)
        tasks.append(asyncio.create_task(asyncio.to_thread(client.go_on)))
        theirs: set[int] = set()
        for number in range(rounds):
            victims = await workers.both_serve()
            await asyncio.sleep(random.uniform(0.2, 0.6))
            victim = victims[number % 2]
            victim.send_signal(signal.SIGSTOP)  # so that its set of clients stays fixed
            theirs |= _ports(victim)
            victim.kill()
            started = time.perf_counter()
            while len(found := workers.all()) < 2 or victim in found:
                await asyncio.sleep(0.05)
            await workers.both_serve()
            self.times.append(time.perf_counter() - started)
        callers.over = client.over = True
        await asyncio.gather(*tasks)
        self.counted += callers.counted + client.counted
        self.elsewhere += sum(port not in theirs for port in callers.cuts)
        self.longest = max(self.longest, callers.longest)

    def report(self) -> None:
        print(
            f"\n{'kills':>8}{'answered':>10}{'refused':>9}{'cut':>6}{'of others':>11}{'lost':>6}"
            f"{'longest, s':>12}{'replaced, s: p50':>18}{'max':>6}"
        )
        print(
            f"{len(self.times):8}{self.counted['answered']:10}"
            f"{self.counted['told to come back']:9}{self.counted['cut']:6}{self.elsewhere:11}"
            f"{self.lost:6}{self.longest:12.1f}{percentile(self.times, 0.5):18.1f}"
            f"{max(self.times):6.1f}  {dict(self.counted) if self.lost else ''}"
        )


@click.command()
@click.option("--model", type=click.Path(exists=True, path_type=Path), help="NAME/1/model.onnx")
@click.option("--drains", "drain_rounds", default=100)
@click.option("--kills", "kill_rounds", default=20)
def main(model: Path | None, drain_rounds: int, kill_rounds: int) -> None:
    lost = 0
    kills = Kills()
    with tempfile.TemporaryDirectory() as folder:
        file = model or untrained(Path(folder))
        command = [PYTHON, "-m", "service", "--models", str(file.parent.parent.parent)]
        command += ["--port", str(PORT)]
        if drain_rounds:
            lost += drains(command, drain_rounds)
        while (left := kill_rounds - len(kills.times)) > 0:
            with server("figment", [*command, "--workers", "2"]) as (process, _):
                uvloop.run(kills.go(process, min(left, OF_ONE)))
    if kill_rounds:
        kills.report()
        lost += kills.lost
    print(f"\n{'MISSED' if lost else 'met   '}  {lost} lost; load average {os.getloadavg()[0]:.1f}")
    sys.exit(lost > 0)


if __name__ == "__main__":
    main()
