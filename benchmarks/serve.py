"""Throughput, latency and memory of the service, compared with the runtime alone.

    python -m benchmarks.serve [--model FILE] [--rounds 3] [--seconds 4]

Starts everything itself, on this machine: the service, a naive endpoint (naive.py), and the
ceiling, which is the same work without a server (ceiling.py). They are measured alternately,
and ratios are taken within a round, so that other load on the machine affects all alike.
Without ``--model``, it is an untrained DCGAN of width 64 for 64x64 images.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import click
import httpx
import psutil

from benchmarks.load import Load
from service.core import cpus

ROOT = Path(__file__).parent.parent
PORTS = {"figment": 8765, "naive": 8766}
PYTHON = sys.executable
WIDTH = 64


@dataclass(frozen=True)
class Scenario:
    name: str
    connections: int
    n: int
    ceiling: str
    query: str = ""


SCENARIOS = (
    Scenario("n=1, alone", 1, 1, "lone"),
    Scenario("n=1, 32 connections", 32, 1, "bulk"),
    Scenario("n=1, 128 connections", 128, 1, "bulk"),
    Scenario("n=16, 8 connections", 8, 16, "bulk"),
    Scenario("n=256, 2 connections", 2, 256, "bulk"),
    Scenario("npy stream of 2000", 1, 2000, "npy", "?format=npy"),
)


def untrained(folder: Path) -> Path:
    """Write a model file with untrained weights, and return its path."""
    from service.core.manifest import DatasetInfo, Manifest, Provenance
    from training.config import TrainingConfig
    from training.export.export import to_onnx
    from training.networks.networks import Generator

    config = TrainingConfig(data="avatars", name="bench", width=WIDTH, network="dcgan")
    generator = Generator(config, condition_size=0, image_shape=(64, 64, 3)).eval()
    dataset = DatasetInfo(name="none", licence="none", images=0, sha256="0" * 64)
    manifest = Manifest(
        name="bench",
        kind="unconditional",
        latent_size=config.latent_size,
        height=64,
        width=64,
        channels=3,
        attributes=(),
        provenance=Provenance(dataset=dataset, training={}, code_version="0", date="2026-01-01"),
    )
    path = folder / "bench" / "1" / "model.onnx"
    path.parent.mkdir(parents=True)
    path.write_bytes(to_onnx(generator, manifest))
    return path


@contextmanager
def server(name: str, command: list[str]) -> Iterator[tuple[psutil.Process, float]]:
    """Run a server; yield its process and the seconds from its start to its first image."""
    url = f"http://127.0.0.1:{PORTS[name]}"
    started = time.perf_counter()
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL) as process:
        try:
            while True:
                try:
                    httpx.post(f"{url}/generate", json={"seed": 1}).raise_for_status()
                    break
                except httpx.TransportError:
                    if process.poll() is not None:
                        raise SystemExit(f"{name} did not start: {' '.join(command)}") from None
                    time.sleep(0.01)
            yield psutil.Process(process.pid), time.perf_counter() - started
        finally:
            process.terminate()


def peak_memory(process: psutil.Process) -> float:
    """Peak resident memory in megabytes; only on Linux."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    (line,) = [line for line in status.splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) / 1024


def load(name: str, scenario: Scenario, seconds: float) -> Load:
    """Run ``benchmarks.load`` in a process of its own."""
    url = f"http://127.0.0.1:{PORTS[name]}/generate{scenario.query}"
    body = json.dumps({"n": scenario.n, "seed": 3})
    command = [PYTHON, "-m", "benchmarks.load", url, body]
    options = [f"--connections={scenario.connections}", f"--seconds={seconds}"]
    done = subprocess.run([*command, *options], cwd=ROOT, check=True, capture_output=True)
    return Load(**json.loads(done.stdout))


@contextmanager
def runtime_alone(model: Path) -> Iterator[Callable[[str, float], float]]:
    """Run ``benchmarks.ceiling``; yield a function of (kind, seconds) to images per second."""
    command = [PYTHON, "-m", "benchmarks.ceiling", str(model)]
    with subprocess.Popen(
        command, cwd=ROOT, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        asked, answered = process.stdin, process.stdout
        assert asked is not None and answered is not None

        def rate(kind: str, seconds: float) -> float:
            asked.write(f"{kind} {seconds}\n")
            asked.flush()
            return float(answered.readline())

        yield rate
        asked.close()


@dataclass
class Measured:
    """Results of one scenario, one per round; ``loads`` are those of the service."""

    ceiling: list[float]
    loads: list[Load]
    naive: list[float]


def measure(model: Path, rounds: int, seconds: float) -> None:
    service = [PYTHON, "-m", "service", "--models", str(model.parent.parent.parent)]
    naive = [PYTHON, "-m", "benchmarks.naive", str(model), str(PORTS["naive"])]
    with ExitStack() as stack:
        ours, start = stack.enter_context(
            server("figment", [*service, "--port", str(PORTS["figment"])])
        )
        other, other_start = stack.enter_context(server("naive", naive))
        ceiling = stack.enter_context(runtime_alone(model))
        found = {scenario.name: Measured([], [], []) for scenario in SCENARIOS}
        for _ in range(rounds):
            for scenario in SCENARIOS:
                this = found[scenario.name]
                this.ceiling.append(ceiling(scenario.ceiling, seconds))
                this.loads.append(load("figment", scenario, seconds))
                if not scenario.query:
                    asked = load("naive", scenario, seconds)
                    this.naive.append(asked.requests_per_second * scenario.n)
        memory = peak_memory(ours), peak_memory(other)
    report(found)
    lone, crowd = found["n=1, alone"], found["n=1, 128 connections"]
    limit = 1.15 * 1000 / statistics.median(lone.ceiling) + 2
    print(
        f"\nn=1, alone           p50 {_median(lone, 'p50'):.1f} ms; "
        f"1.15 times the ceiling's and 2 ms are {limit:.1f} ms"
    )
    perfect = 128_000 / statistics.median(crowd.ceiling)
    print(
        f"n=1, 128 connections p99 is {_median(crowd, 'p99') / perfect:.2f} times "
        "what the ceiling takes for 128 images"
    )
    print(f"peak memory          {memory[0]:.0f} MB; naive {memory[1]:.0f} MB")
    print(f"start to first image {start:.1f} s; naive {other_start:.1f} s")
    print(f"threads              {cpus.available()}; rounds of {seconds:g} s: {rounds}")


def report(found: dict[str, Measured]) -> None:
    print("images/s, medians; shares of the ceiling within a round\n")
    print(
        f"{'':<22}{'ceiling':>8}{'figment':>9}{'share':>7}{'naive':>8}{'share':>7}"
        f"{'p50 ms':>9}{'p95':>8}{'p99':>8}{'errors':>8}"
    )
    for scenario in SCENARIOS:
        this = found[scenario.name]
        ours = [asked.requests_per_second * scenario.n for asked in this.loads]
        times = [_median(this, name) for name in ("p50", "p95", "p99")]
        print(
            f"{scenario.name:<22}{statistics.median(this.ceiling):8.0f}"
            f"{statistics.median(ours):9.0f}{_share(ours, this.ceiling):>7}"
            f"{statistics.median(this.naive or [0]):8.0f}{_share(this.naive, this.ceiling):>7}"
            f"{times[0]:9.1f}{times[1]:8.1f}{times[2]:8.1f}"
            f"{sum(asked.errors for asked in this.loads):8}"
        )


def _median(this: Measured, name: str) -> float:
    found: float = statistics.median(getattr(asked, name) for asked in this.loads)
    return found


def _share(rates: list[float], ceilings: list[float]) -> str:
    if not rates:
        return "-"
    return f"{statistics.median(r / c for r, c in zip(rates, ceilings, strict=True)):.2f}"


@click.command()
@click.option("--model", type=click.Path(exists=True, path_type=Path), help="NAME/1/model.onnx")
@click.option("--rounds", default=3)
@click.option("--seconds", default=4.0)
def main(model: Path | None, rounds: int, seconds: float) -> None:
    with tempfile.TemporaryDirectory() as folder:
        measure(model or untrained(Path(folder)), rounds, seconds)


if __name__ == "__main__":
    main()
