"""Measurements behind the CUDA settings: batch sizes, exactness, graphs, copies, memory.

    python -m benchmarks.cuda [--model FILE] [--device cuda]

``--device cpu`` tests the script on a machine without a GPU; its figures are then meaningless.
"""

from __future__ import annotations

import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import click
import numpy as np
import onnxruntime as ort

from benchmarks.serve import untrained
from service.inference.execution import BUCKETS, BucketedExecutor, Feeds
from service.inference.session import CPU, CUDA, CUDA_OPTIONS, batch_names

SECONDS = 3.0
MIXED = (1, 8, 16)
REQUESTS = 1000


def session(model: bytes, device: str, size: int | None, **changes: str) -> ort.InferenceSession:
    """Open a session as the service does, with ``changes`` to the provider's options."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    if size is not None:
        for name in batch_names(model):
            options.add_free_dimension_override_by_name(name, size)
    provider = (CUDA, CUDA_OPTIONS | changes) if device == "cuda" else (CPU, {})
    found = ort.InferenceSession(model, options, providers=[provider], enable_fallback=0)
    if found.get_providers()[0] != provider[0]:
        raise SystemExit(f"{device} is not available: {found.get_providers()}")
    return found


def rows(model: bytes, count: int) -> Feeds:
    (node,) = session(model, "cpu", None).get_inputs()
    random = np.random.default_rng(0)
    return {node.name: random.standard_normal((count, node.shape[1]), dtype=np.float32)}


def part(feeds: Feeds, first: int, count: int) -> Feeds:
    return {name: values[first : first + count] for name, values in feeds.items()}


def rate(run: Callable[[], int]) -> float:
    """Images per second of ``run``, which returns how many it made."""
    run()
    made, started = 0, time.perf_counter()
    while time.perf_counter() < started + SECONDS:
        made += run()
    return made / (time.perf_counter() - started)


def sizes(model: bytes, device: str) -> None:
    print("\nimages/s of one dynamic session: batches of 16, and of 1, 8 and 16 in turn")
    feeds = rows(model, max(MIXED))
    for search in ("HEURISTIC", "EXHAUSTIVE"):
        opened = session(model, device, None, cudnn_conv_algo_search=search)

        def run(
            batches: tuple[int, ...], opened: ort.InferenceSession = opened, feeds: Feeds = feeds
        ) -> int:
            return sum(len(opened.run(None, dict(part(feeds, 0, n)))[0]) for n in batches)

        constant, mixed = rate(lambda: run((16,))), rate(lambda: run(MIXED))
        print(f"  {search:<12}{constant:10.0f}{mixed:10.0f}")
    print("images/s of each bucket, bound")
    for size in BUCKETS:
        bound = BucketedExecutor({size: session(model, device, size)}, device)
        batch = rows(model, size)
        print(f"  {size:<12}{rate(lambda: len(bound(batch))):10.0f}")  # noqa: B023


def exactness(model: bytes, device: str) -> None:
    print("\nrows that differ from the bucket of 16's, of 16; and from themselves, 3 places on")
    feeds = rows(model, 16)
    for tf32 in ("0", "1"):
        reference = BucketedExecutor({16: session(model, device, 16, use_tf32=tf32)}, device)
        expected = reference(feeds)
        for size in BUCKETS:
            bucket = BucketedExecutor({size: session(model, device, size, use_tf32=tf32)}, device)
            step = min(size, 16)
            found = np.concatenate([bucket(part(feeds, i, step)) for i in range(0, 16, step)])
            differ = int((found != expected).any(axis=(1, 2, 3)).sum())
            most = int(np.abs(found.astype(int) - expected).max())
            print(f"  tf32 {tf32}, bucket {size:<4} {differ:3} rows, by up to {most} of 255")
        moved = {name: np.roll(values, 3, axis=0) for name, values in feeds.items()}
        differ = int((np.roll(reference(moved), -3, axis=0) != expected).any(axis=(1, 2, 3)).sum())
        print(f"  tf32 {tf32}, other places {differ:3} rows")


def graphs(model: bytes, device: str) -> None:
    print("\nmilliseconds of a run, bound: plain and as a captured graph")
    for size in (1, 16):
        feeds = rows(model, size)
        plain = BucketedExecutor({size: session(model, device, size)}, device)
        graph = BucketedExecutor(
            {size: session(model, device, size, enable_cuda_graph="1")}, device
        )
        for _ in range(3):
            graph(feeds)  # captures the graph
        times = [1000 * size / rate(lambda: len(run(feeds))) for run in (plain, graph)]  # noqa: B023
        same = np.array_equal(plain(feeds), graph(feeds))
        print(f"  {size:<4}{times[0]:8.3f}{times[1]:8.3f}  {'same' if same else 'other'} images")


def copies(device: str) -> None:
    print("\nmicroseconds to fetch 64 images of 64x64")
    for kind in (np.uint8, np.float32):
        value = ort.OrtValue.ortvalue_from_shape_and_type((64, 64, 64, 3), kind, device, 0)
        print(f"  {np.dtype(kind).name:<10}{64e6 / rate(lambda: len(value.numpy())):8.0f}")  # noqa: B023


def memory(model: bytes, device: str) -> None:
    print(f"\nmegabytes of GPU memory before and after {REQUESTS} requests of 1 to 64 images")
    generator = BucketedExecutor({n: session(model, device, n) for n in BUCKETS}, device)
    feeds, random = rows(model, max(BUCKETS)), np.random.default_rng(0)
    for size in BUCKETS:
        generator(part(feeds, 0, size))
    before = used(device)
    for count in random.integers(1, max(BUCKETS) + 1, REQUESTS).tolist():
        generator(part(feeds, 0, count))
    print(f"  {before} {used(device)}")


def used(device: str) -> str:
    if device == "cpu":
        return "-"
    query = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
    return subprocess.run(query, check=True, capture_output=True, text=True).stdout.strip()


@click.command()
@click.option(
    "--model", type=click.Path(exists=True, path_type=Path), help="Unconditional model file."
)
@click.option("--device", type=click.Choice(["cuda", "cpu"]), default="cuda")
def main(model: Path | None, device: str) -> None:
    if device == "cuda":
        ort.preload_dlls(directory="")
    with tempfile.TemporaryDirectory() as folder:
        content = (model or untrained(Path(folder))).read_bytes()
    print(f"ONNX Runtime {ort.__version__}, {device}")
    sizes(content, device)
    exactness(content, device)
    graphs(content, device)
    copies(device)
    memory(content, device)


if __name__ == "__main__":
    main()
