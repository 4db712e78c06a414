"""Sets compared with JSON responses and the runtime alone; server memory during a stream.

    python -m benchmarks.sets [--rounds 3] [--images 3000]
    python -m benchmarks.sets memory [--images 1000000] [--format zip]

Throughput: one stream of each format, JSON responses of 256 images over two connections, and the
model in ONNX Runtime alone, alternately; ratios are taken within a round. Memory: growth of the
server's resident memory while a set is read at full speed, slowly, and not at all.
"""

from __future__ import annotations

import json
import socket
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import click
import psutil

from benchmarks.serve import PORTS, PYTHON, Scenario, load, runtime_alone, server, untrained

FORMATS = ("zip", "webdataset", "parquet", "npy")
JSON = Scenario("json", connections=2, n=256, ceiling="npy")
MEGABYTE = 1 << 20
SLOW_READ = 1 << 16
SLOW = MEGABYTE / 4
"""Bytes per second of a slow reader."""


class Stream:
    """Streamed set."""

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
            while got := self.socket.recv(buffer):
                yield len(got)


def images_per_second(format_: str, images: int) -> float:
    """Images per second of one stream, read to its end."""
    started = time.perf_counter()
    for _ in Stream(format_, {"n": images, "seed": 3}).read():
        pass
    return images / (time.perf_counter() - started)


def throughput(model: Path, rounds: int, images: int, seconds: float) -> None:
    command = [PYTHON, "-m", "service", "--models", str(model.parent.parent.parent)]
    with ExitStack() as stack:
        stack.enter_context(server("figment", [*command, "--port", str(PORTS["figment"])]))
        ceiling = stack.enter_context(runtime_alone(model))
        runtime, whole = [], []
        found: dict[str, list[float]] = {format_: [] for format_ in FORMATS}
        for _ in range(rounds):
            runtime.append(ceiling(JSON.ceiling, seconds))
            whole.append(load("figment", JSON, seconds).requests_per_second * JSON.n)
            for format_ in FORMATS:
                found[format_].append(images_per_second(format_, images))
    print(f"{'':<14}{'images/s':>10}{'of JSON':>10}{'of the runtime':>16}")
    print(f"{'runtime':<14}{statistics.median(runtime):10.0f}")
    print(f"{'json':<14}{statistics.median(whole):10.0f}{'':>10}{_ratio(whole, runtime):16.2f}")
    for format_, rates in found.items():
        print(
            f"{format_:<14}{statistics.median(rates):10.0f}{_ratio(rates, whole):10.2f}"
            f"{_ratio(rates, runtime):16.2f}"
        )


def _ratio(rates: list[float], others: list[float]) -> float:
    return statistics.median(r / o for r, o in zip(rates, others, strict=True))


def memory(formats: tuple[str, ...], images: int, seconds: float) -> None:
    """Measure with the shipped digits, the fastest model."""
    command = [PYTHON, "-m", "service", "--port", str(PORTS["figment"])]
    print(f"megabytes above those before; a set of {images:,} images")
    print(f"{'':<12}{'before':>8}{'read':>8}{'slowly':>8}{'stopped':>9}{'images/s':>10}")
    for format_ in formats:
        with server("figment", command) as (process, _):
            # Exclude memory allocated once, by the first images and the first file of a format.
            images_per_second(format_, 5000)
            before = process.memory_info().rss / MEGABYTE
            started = time.perf_counter()
            peak = _peak(process, format_, images, lambda: None)
            rate = images / (time.perf_counter() - started)
            slowly = _peak(process, format_, images, lambda: time.sleep(SLOW_READ / SLOW), seconds)
            stopped = _peak(process, format_, images, lambda: time.sleep(seconds), seconds)
            print(
                f"{format_:<12}{before:8.0f}{peak - before:8.0f}{slowly - before:8.0f}"
                f"{stopped - before:9.0f}{rate:10.0f}"
            )


def _peak(
    process: psutil.Process,
    format_: str,
    images: int,
    between: Callable[[], None],
    seconds: float = float("inf"),
) -> float:
    """Peak resident megabytes during ``seconds`` of a set, calling ``between`` between reads."""
    peaks = [0.0]
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.05):
            peaks.append(process.memory_info().rss / MEGABYTE)

    watching = threading.Thread(target=watch)
    watching.start()
    end = time.perf_counter() + seconds
    for _ in Stream(format_, {"model": "digits", "n": images, "seed": 3}).read(SLOW_READ):
        between()
        if time.perf_counter() > end:
            break
    done.set()
    watching.join()
    return max(peaks)


@click.group(invoke_without_command=True)
@click.option("--model", type=click.Path(exists=True, path_type=Path), help="NAME/1/model.onnx")
@click.option("--rounds", default=3)
@click.option("--images", default=3000)
@click.option("--seconds", default=4.0)
@click.pass_context
def main(
    context: click.Context, /, model: Path | None, rounds: int, images: int, seconds: float
) -> None:
    if context.invoked_subcommand is None:
        with tempfile.TemporaryDirectory() as folder:
            throughput(model or untrained(Path(folder)), rounds, images, seconds)


@main.command("memory")
@click.option("--format", "formats", multiple=True, type=click.Choice(FORMATS), default=FORMATS)
@click.option("--images", default=1_000_000)
@click.option("--seconds", default=20.0)
def memory_command(formats: tuple[str, ...], images: int, seconds: float) -> None:
    memory(formats, images, seconds)


if __name__ == "__main__":
    main()
