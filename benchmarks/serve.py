"""Throughput, latency, CPU time and memory of the service, compared with the runtime alone.

    python -m benchmarks.serve [--model FILE] [--rounds 3] [--seconds 4] [--litserve PYTHON]

Needs free ports from 8765 on, and PyTorch unless ``--model`` is given; takes about 22 times
``--seconds`` per round and server, some five minutes by default. Starts on this machine: the
service, a naive endpoint (``naive.py``), with ``--litserve`` the same behind LitServe
(``litserve_endpoint.py``), and the ceiling, which is the same work without a server
(``ceiling.py``). They are measured alternately, and ratios are taken within a round, so that other
load on the machine affects all alike. The default model is an untrained DCGAN of width 64 for 64x64
images; ``--model models/anime-faces-free/VERSION/model.onnx`` measures a shipped one of width 32.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import click
import httpx
import psutil

from benchmarks.load import LoadResult
from service.core import cpus

ROOT = Path(__file__).parent.parent
PORTS = {"figment": 8765, "naive": 8766, "litserve": 8767}
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
            workers = psutil.Process(process.pid).children(recursive=True)
            process.terminate()
            for worker in workers:  # LitServe's outlive their parent
                with suppress(psutil.NoSuchProcess):
                    worker.terminate()


def peak_memory(server: psutil.Process) -> float:
    """Sum of the peak resident memory of a server's processes in MiB; only on Linux."""
    total = 0
    for process in (server, *server.children(recursive=True)):
        status = Path(f"/proc/{process.pid}/status").read_text()
        (line,) = [line for line in status.splitlines() if line.startswith("VmHWM")]
        total += int(line.split()[1])
    return total / 1024


def cpu_seconds(server: psutil.Process) -> float:
    """CPU time of a server's running processes so far, in seconds."""
    times = [process.cpu_times() for process in (server, *server.children(recursive=True))]
    return sum(time.user + time.system for time in times)


@dataclass
class Measurement:
    """Rate of one measurement, and the CPU time that an image took."""

    images_per_second: float
    cpu_seconds_per_image: float
    load: LoadResult | None = None
    """None for the ceiling."""


def run_load(name: str, scenario: Scenario, seconds: float) -> LoadResult:
    """Run ``benchmarks.load`` in a process of its own."""
    url = f"http://127.0.0.1:{PORTS[name]}/generate{scenario.query}"
    body = json.dumps({"n": scenario.n, "seed": 3})
    command = [PYTHON, "-m", "benchmarks.load", url, body]
    options = [f"--connections={scenario.connections}", f"--seconds={seconds}"]
    process = subprocess.run([*command, *options], cwd=ROOT, check=True, capture_output=True)
    return LoadResult(**json.loads(process.stdout))


def measure_server(
    name: str, process: psutil.Process, scenario: Scenario, seconds: float
) -> Measurement:
    """Measure a server under the load of a scenario."""
    before = cpu_seconds(process)
    load = run_load(name, scenario, seconds)
    cpu = cpu_seconds(process) - before
    return Measurement(
        load.requests_per_second * scenario.n, cpu / (load.served * scenario.n), load
    )


@contextmanager
def runtime_alone(model: Path) -> Iterator[Callable[[str, float], Measurement]]:
    """Run ``benchmarks.ceiling``; yield a function of (kind, seconds) to its measurement."""
    command = [PYTHON, "-m", "benchmarks.ceiling", str(model)]
    with subprocess.Popen(
        command, cwd=ROOT, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        stdin, stdout = process.stdin, process.stdout
        assert stdin is not None and stdout is not None
        cpu = psutil.Process(process.pid)

        def measure(kind: str, seconds: float) -> Measurement:
            before, started = cpu_seconds(cpu), time.perf_counter()
            stdin.write(f"{kind} {seconds}\n")
            stdin.flush()
            rate = float(stdout.readline())
            images = rate * (time.perf_counter() - started)
            return Measurement(rate, (cpu_seconds(cpu) - before) / images)

        yield measure
        stdin.close()


CEILING = "ceiling"
Results = dict[Scenario, dict[str, list[Measurement]]]
"""Measurements by scenario and name (a server's, or ``CEILING``), one per round."""


def measure(model: Path, litserve: str | None, rounds: int, seconds: float) -> None:
    file, models = str(model), str(model.parent.parent.parent)
    commands = {
        "figment": [PYTHON, "-m", "service", "--models", models],
        "naive": [PYTHON, "-m", "benchmarks.naive", file, str(PORTS["naive"])],
    }
    commands["figment"] += ["--port", str(PORTS["figment"])]
    if litserve:
        module = "benchmarks.litserve_endpoint"
        commands["litserve"] = [litserve, "-m", module, file, str(PORTS["litserve"])]
    with ExitStack() as stack:
        started = {
            name: stack.enter_context(server(name, command)) for name, command in commands.items()
        }
        ceiling = stack.enter_context(runtime_alone(model))
        results: Results = {scenario: defaultdict(list) for scenario in SCENARIOS}
        for _ in range(rounds):
            for scenario, by_name in results.items():
                by_name[CEILING].append(ceiling(scenario.ceiling, seconds))
                for name, (process, _) in started.items():
                    if name == "figment" or not scenario.query:
                        by_name[name].append(measure_server(name, process, scenario, seconds))
        memory = {name: peak_memory(process) for name, (process, _) in started.items()}
    report(results)
    for name, (_, start) in started.items():
        print(f"{name:<10}peak memory {memory[name]:5.0f} MB; start to first image {start:.1f} s")
    print(f"threads   {cpus.available()}; {rounds} rounds of {seconds:g} s")


COLUMNS = ("images/s", "share", "CPU ms", "p50 ms", "p95", "p99", "errors")


def report(results: Results) -> None:
    print(
        "Medians of the rounds. share: of the ceiling of the same round. CPU ms: processor time "
        "of a request beyond that of its images in the ceiling.\n"
    )
    print(f"{'':<22}{'':<10}" + "".join(f"{column:>10}" for column in COLUMNS))
    for scenario, by_name in results.items():
        ceiling = by_name[CEILING]
        for name, measured in by_name.items():
            rates = [result.images_per_second for result in measured]
            line = f"{scenario.name:<22}{name:<10}{statistics.median(rates):10.0f}"
            if name != CEILING:
                pairs = list(zip(measured, ceiling, strict=True))
                share = statistics.median(
                    result.images_per_second / limit.images_per_second for result, limit in pairs
                )
                cpu = statistics.median(
                    result.cpu_seconds_per_image - limit.cpu_seconds_per_image
                    for result, limit in pairs
                )
                loads = [result.load for result in measured if result.load]
                # The lone ceiling is the better of two runs, so its CPU time is that of neither.
                beyond = "" if scenario.ceiling == "lone" else f"{1000 * cpu * scenario.n:.2f}"
                line += f"{share:10.2f}{beyond:>10}"
                for percentile in ("p50", "p95", "p99"):
                    times = [getattr(load, percentile) for load in loads]
                    line += f"{statistics.median(times):10.1f}"
                line += f"{sum(load.errors for load in loads):10}"
            print(line)


@click.command()
@click.option("--model", type=click.Path(exists=True, path_type=Path), help="NAME/1/model.onnx")
@click.option("--litserve", metavar="PYTHON", help="Python with litserve, onnxruntime and pillow.")
@click.option("--rounds", default=3, show_default=True)
@click.option("--seconds", default=4.0, show_default=True, help="Duration of each measurement.")
def main(model: Path | None, litserve: str | None, rounds: int, seconds: float) -> None:
    """Compare the service with the runtime alone and with other servers."""
    with tempfile.TemporaryDirectory() as folder:
        measure(model or untrained_model(Path(folder)), litserve, rounds, seconds)


if __name__ == "__main__":
    main()
