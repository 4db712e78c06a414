"""Throughput of sets compared with JSON and the runtime alone; server memory during a stream.

    python -m benchmarks.sets [--rounds 3] [--images 3000]
    python -m benchmarks.sets memory [--images 1000000] [--format zip]

Needs the free port 8765, and PyTorch unless ``--model`` is given. Throughput takes about half a
minute per round on two cores: one stream of each format, JSON responses of 256 images over two
connections, and the model in ONNX Runtime alone, alternately; ratios are taken within a round.
Memory takes several minutes per format: growth of the server's resident memory while a client reads
a set at full speed, slowly, and not at all.
"""

from __future__ import annotations

import json
import socket
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import click
import psutil

from benchmarks.serve import (
    PORTS,
    PYTHON,
    Scenario,
    run_load,
    runtime_alone,
    server,
    untrained_model,
)

FORMATS = ("zip", "webdataset", "parquet", "npy")
JSON = Scenario("json", connections=2, n=256, ceiling="npy")
MEGABYTE = 1 << 20
SLOW_READ_BYTES = 1 << 16
SLOW_BYTES_PER_SECOND = MEGABYTE / 4
"""Slow client: 2 Mbit/s, far below the speed at which any format is made."""
WARM_UP_IMAGES = 5000
"""Enough to allocate memory that the first images and the first file of a format need once."""
SAMPLE_SECONDS = 0.05


class Stream:
    """Streamed set, over a connection of its own."""

    def __init__(self, format_: str, body: dict[str, object]) -> None:
        content = json.dumps(body).encode()
        self.socket = socket.create_connection(("127.0.0.1", PORTS["figment"]))
        self.socket.sendall(
            f"POST /generate?format={format_} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n".encode()
            + content
        )

    def read(self, buffer: int = MEGABYTE) -> Iterator[int]:
        """Yield the sizes of received chunks, in bytes."""
        with self.socket:
            while chunk := self.socket.recv(buffer):
                yield len(chunk)


def images_per_second(format_: str, images: int) -> float:
    """Images per second of one stream, read to its end."""
    started = time.perf_counter()
    for _ in Stream(format_, {"n": images, "seed": 3}).read():
        pass
    return images / (time.perf_counter() - started)


def compare_throughput(model: Path, rounds: int, images: int, seconds: float) -> None:
    """Print the throughput of each format beside JSON and the runtime."""
    command = [PYTHON, "-m", "service", "--models", str(model.parent.parent.parent)]
    with ExitStack() as stack:
        stack.enter_context(server("figment", [*command, "--port", str(PORTS["figment"])]))
        ceiling = stack.enter_context(runtime_alone(model))
        runtime_rates, json_rates = [], []
        set_rates: dict[str, list[float]] = {format_: [] for format_ in FORMATS}
        for _ in range(rounds):
            runtime_rates.append(ceiling(JSON.ceiling, seconds).images_per_second)
            json_rates.append(run_load("figment", JSON, seconds).requests_per_second * JSON.n)
            for format_ in FORMATS:
                set_rates[format_].append(images_per_second(format_, images))
    print(f"{'':<14}{'images/s':>10}{'of JSON':>10}{'of the runtime':>16}")
    print(f"{'runtime':<14}{statistics.median(runtime_rates):10.0f}")
    print(
        f"{'json':<14}{statistics.median(json_rates):10.0f}{'':>10}"
        f"{_ratio(json_rates, runtime_rates):16.2f}"
    )
    for format_, rates in set_rates.items():
        print(
            f"{format_:<14}{statistics.median(rates):10.0f}{_ratio(rates, json_rates):10.2f}"
            f"{_ratio(rates, runtime_rates):16.2f}"
        )


def _ratio(rates: list[float], references: list[float]) -> float:
    """Median of the ratios within a round."""
    return statistics.median(r / c for r, c in zip(rates, references, strict=True))


def measure_memory(formats: tuple[str, ...], images: int, seconds: float) -> None:
    """Print the growth of memory with the shipped digits, the fastest model."""
    command = [PYTHON, "-m", "service", "--port", str(PORTS["figment"])]
    print(f"peak memory in MB above the value before; a set of {images:,} images")
    print(f"{'':<12}{'before':>8}{'read':>8}{'slowly':>8}{'stopped':>9}{'images/s':>10}")
    for format_ in formats:
        with server("figment", command) as (process, _):
            images_per_second(format_, WARM_UP_IMAGES)
            before = process.memory_info().rss / MEGABYTE
            started = time.perf_counter()
            fast = _peak_memory(process, format_, images)
            rate = images / (time.perf_counter() - started)
            pause = SLOW_READ_BYTES / SLOW_BYTES_PER_SECOND
            slow = _peak_memory(process, format_, images, pause, seconds)
            stopped = _peak_memory(process, format_, images, seconds, seconds)
            print(
                f"{format_:<12}{before:8.0f}{fast - before:8.0f}{slow - before:8.0f}"
                f"{stopped - before:9.0f}{rate:10.0f}"
            )


def _peak_memory(
    process: psutil.Process,
    format_: str,
    images: int,
    pause: float = 0,
    seconds: float = float("inf"),
) -> float:
    """Peak resident MiB while a set is read for ``seconds``, with a pause after each read."""
    samples = [0.0]
    done = threading.Event()

    def sample() -> None:
        while not done.wait(SAMPLE_SECONDS):
            samples.append(process.memory_info().rss / MEGABYTE)

    sampler = threading.Thread(target=sample)
    sampler.start()
    end = time.perf_counter() + seconds
    for _ in Stream(format_, {"model": "digits", "n": images, "seed": 3}).read(SLOW_READ_BYTES):
        if pause:
            time.sleep(pause)
        if time.perf_counter() > end:
            break
    done.set()
    sampler.join()
    return max(samples)


@click.group(invoke_without_command=True)
@click.option("--model", type=click.Path(exists=True, path_type=Path), help="NAME/1/model.onnx")
@click.option("--rounds", default=3, show_default=True)
@click.option("--images", default=3000, show_default=True, help="Images in each set.")
@click.option(
    "--seconds", default=4.0, show_default=True, help="Duration of JSON and of the runtime."
)
@click.pass_context
def main(
    context: click.Context, /, model: Path | None, rounds: int, images: int, seconds: float
) -> None:
    """Compare the throughput of all set formats with JSON and the runtime alone."""
    if context.invoked_subcommand is None:
        with tempfile.TemporaryDirectory() as folder:
            compare_throughput(model or untrained_model(Path(folder)), rounds, images, seconds)


@main.command("memory")
@click.option("--format", "formats", multiple=True, type=click.Choice(FORMATS), default=FORMATS)
@click.option("--images", default=1_000_000, show_default=True)
@click.option(
    "--seconds", default=20.0, show_default=True, help="Duration of the slow and the stopped read."
)
def memory(formats: tuple[str, ...], images: int, seconds: float) -> None:
    """Measure the server's memory while a set is read at full speed, slowly, and not at all."""
    measure_memory(formats, images, seconds)


if __name__ == "__main__":
    main()
