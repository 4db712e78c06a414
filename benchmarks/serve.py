"""Throughput, latency and memory of the service, compared with the runtime alone.

    python -m benchmarks.serve [--model FILE] [--rounds 3] [--seconds 4]

Needs the free ports 8765 and 8766, and PyTorch unless ``--model`` is given; takes 18 times
``--seconds`` per round, about four minutes by default. Starts three processes on this machine: the
service, a naive endpoint (``naive.py``), and the ceiling, which is the same work without a server
(``ceiling.py``). They are measured alternately, and ratios are taken within a round, so that other
load on the machine affects all alike. The default model is an untrained DCGAN of width 64 for 64x64
images.
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

from benchmarks.load import LoadResult
from service.core import cpus

ROOT = Path(__file__).parent.parent
PORTS = {"figment": 8765, "naive": 8766}
"""Ports of the servers by name; below the ephemeral ports of Linux, which start at 32768."""
PYTHON = sys.executable
WIDTH = 64
"""Channels at half the image's size, as in PyTorch's DCGAN tutorial: a model file of 14 MB."""


@dataclass(frozen=True)
class Scenario:
    """Closed-loop load of requests for ``n`` images, and the kind of ceiling beside it."""

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


def untrained_model(folder: Path) -> Path:
    """Write a model file with untrained weights and return its path, NAME/1/model.onnx."""
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
    """Run a server; yield its process and the seconds from its start to its first image.

    Raises ``SystemExit`` if the server exits before its first image.
    """
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
    """Peak resident memory in MiB; only on Linux."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    (line,) = [line for line in status.splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) / 1024


def run_load(name: str, scenario: Scenario, seconds: float) -> LoadResult:
    """Run ``benchmarks.load`` in a process of its own."""
    url = f"http://127.0.0.1:{PORTS[name]}/generate{scenario.query}"
    body = json.dumps({"n": scenario.n, "seed": 3})
    command = [PYTHON, "-m", "benchmarks.load", url, body]
    options = [f"--connections={scenario.connections}", f"--seconds={seconds}"]
    process = subprocess.run([*command, *options], cwd=ROOT, check=True, capture_output=True)
    return LoadResult(**json.loads(process.stdout))


@contextmanager
def runtime_alone(model: Path) -> Iterator[Callable[[str, float], float]]:
    """Run ``benchmarks.ceiling``; yield a function of (kind, seconds) to images per second."""
    command = [PYTHON, "-m", "benchmarks.ceiling", str(model)]
    with subprocess.Popen(
        command, cwd=ROOT, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        stdin, stdout = process.stdin, process.stdout
        assert stdin is not None and stdout is not None

        def throughput(kind: str, seconds: float) -> float:
            stdin.write(f"{kind} {seconds}\n")
            stdin.flush()
            return float(stdout.readline())

        yield throughput
        stdin.close()


@dataclass
class ScenarioResults:
    """Results of one scenario, one per round; rates are in images per second."""

    ceiling: list[float]
    service: list[LoadResult]
    naive: list[float]


def measure(model: Path, rounds: int, seconds: float) -> None:
    service = [PYTHON, "-m", "service", "--models", str(model.parent.parent.parent)]
    naive = [PYTHON, "-m", "benchmarks.naive", str(model), str(PORTS["naive"])]
    with ExitStack() as stack:
        service_process, service_start = stack.enter_context(
            server("figment", [*service, "--port", str(PORTS["figment"])])
        )
        naive_process, naive_start = stack.enter_context(server("naive", naive))
        ceiling = stack.enter_context(runtime_alone(model))
        results = {scenario.name: ScenarioResults([], [], []) for scenario in SCENARIOS}
        for _ in range(rounds):
            for scenario in SCENARIOS:
                result = results[scenario.name]
                result.ceiling.append(ceiling(scenario.ceiling, seconds))
                result.service.append(run_load("figment", scenario, seconds))
                if not scenario.query:
                    load = run_load("naive", scenario, seconds)
                    result.naive.append(load.requests_per_second * scenario.n)
        memory = peak_memory(service_process), peak_memory(naive_process)
    report(results)
    lone, busy = results["n=1, alone"], results["n=1, 128 connections"]
    limit_ms = 1.15 * 1000 / statistics.median(lone.ceiling) + 2
    print(
        f"\nn=1, alone           p50 {_median(lone, 'p50'):.1f} ms; "
        f"1.15 times the ceiling's time plus 2 ms is {limit_ms:.1f} ms"
    )
    ceiling_ms = 128_000 / statistics.median(busy.ceiling)
    print(
        f"n=1, 128 connections p99 is {_median(busy, 'p99') / ceiling_ms:.2f} times "
        "the ceiling's time for 128 images"
    )
    print(f"peak memory          {memory[0]:.0f} MB; naive {memory[1]:.0f} MB")
    print(f"start to first image {service_start:.1f} s; naive {naive_start:.1f} s")
    print(f"threads              {cpus.available()}; {rounds} rounds of {seconds:g} s")


def report(results: dict[str, ScenarioResults]) -> None:
    print("images/s, medians of the rounds; shares of the ceiling of the same round\n")
    print(
        f"{'':<22}{'ceiling':>8}{'figment':>9}{'share':>7}{'naive':>8}{'share':>7}"
        f"{'p50 ms':>9}{'p95':>8}{'p99':>8}{'errors':>8}"
    )
    for scenario in SCENARIOS:
        result = results[scenario.name]
        rates = [load.requests_per_second * scenario.n for load in result.service]
        times = [_median(result, name) for name in ("p50", "p95", "p99")]
        print(
            f"{scenario.name:<22}{statistics.median(result.ceiling):8.0f}"
            f"{statistics.median(rates):9.0f}{_share(rates, result.ceiling):>7}"
            f"{statistics.median(result.naive or [0]):8.0f}"
            f"{_share(result.naive, result.ceiling):>7}"
            f"{times[0]:9.1f}{times[1]:8.1f}{times[2]:8.1f}"
            f"{sum(load.errors for load in result.service):8}"
        )


def _median(result: ScenarioResults, name: str) -> float:
    median: float = statistics.median(getattr(load, name) for load in result.service)
    return median


def _share(rates: list[float], ceilings: list[float]) -> str:
    if not rates:
        return "-"
    return f"{statistics.median(r / c for r, c in zip(rates, ceilings, strict=True)):.2f}"


@click.command()
@click.option("--model", type=click.Path(exists=True, path_type=Path), help="NAME/1/model.onnx")
@click.option("--rounds", default=3, show_default=True)
@click.option("--seconds", default=4.0, show_default=True, help="Duration of each measurement.")
def main(model: Path | None, rounds: int, seconds: float) -> None:
    """Compare the service with the runtime alone and with a naive endpoint."""
    with tempfile.TemporaryDirectory() as folder:
        measure(model or untrained_model(Path(folder)), rounds, seconds)


if __name__ == "__main__":
    main()
