"""Measurements behind the CUDA settings: batch sizes, exactness, graphs, copies, memory.

    python -m benchmarks.cuda [--model FILE] [--device cuda]

Needs an NVIDIA GPU and onnxruntime-gpu, and PyTorch unless ``--model`` is given; takes a few
minutes. ``--device cpu`` tests the script on a machine without a GPU; its figures are then
meaningless.
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

from benchmarks.serve import untrained_model
from service.inference.execution import BUCKETS, BucketedExecutor, Feeds
from service.inference.session import CPU, CUDA, CUDA_OPTIONS, batch_names

SECONDS = 3.0
"""Duration of each measurement."""
MIXED_SIZES = (1, 8, 16)
"""Alternating batch sizes: without a fixed size, cuDNN may search for algorithms at each change."""
MEMORY_REQUESTS = 1000
SHIFT_ROWS = 3
"""Rows by which a batch is rotated, to see if an image depends on its place in the batch."""
CAPTURE_RUNS = 3
"""Runs before a graph is timed: ONNX Runtime captures it in the first ones."""


def session(model: bytes, device: str, size: int | None, **changes: str) -> ort.InferenceSession:
    """Open a session as the service does, for batches of ``size`` or of any size if it is None.

    changes: options of the CUDA provider that differ from the service's.

    Raises ``SystemExit`` if the device is not available.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    if size is not None:
        for name in batch_names(model):
            options.add_free_dimension_override_by_name(name, size)
    provider = (CUDA, CUDA_OPTIONS | changes) if device == "cuda" else (CPU, {})
    opened = ort.InferenceSession(model, options, providers=[provider], enable_fallback=0)
    if opened.get_providers()[0] != provider[0]:
        raise SystemExit(f"{device} is not available: {opened.get_providers()}")
    return opened


def random_latents(model: bytes, count: int) -> Feeds:
    (node,) = session(model, "cpu", None).get_inputs()
    random = np.random.default_rng(0)
    return {node.name: random.standard_normal((count, node.shape[1]), dtype=np.float32)}


def rows(feeds: Feeds, first: int, count: int) -> Feeds:
    return {name: values[first : first + count] for name, values in feeds.items()}


def throughput(run: Callable[[], int]) -> float:
    """Images per second of ``run``, which returns its number of images, after one warm-up."""
    run()
    count, started = 0, time.perf_counter()
    while time.perf_counter() < started + SECONDS:
        count += run()
    return count / (time.perf_counter() - started)


def measure_sizes(model: bytes, device: str) -> None:
    """Throughput of a session for any batch size, and of one session per size."""
    print("\nimages/s of one dynamic session: batches of 16, and of 1, 8 and 16 alternately")
    feeds = random_latents(model, max(MIXED_SIZES))
    for search in ("HEURISTIC", "EXHAUSTIVE"):
        dynamic = session(model, device, None, cudnn_conv_algo_search=search)

        def run(
            sizes: tuple[int, ...], dynamic: ort.InferenceSession = dynamic, feeds: Feeds = feeds
        ) -> int:
            return sum(len(dynamic.run(None, dict(rows(feeds, 0, n)))[0]) for n in sizes)

        constant, mixed = throughput(lambda: run((16,))), throughput(lambda: run(MIXED_SIZES))
        print(f"  {search:<12}{constant:10.0f}{mixed:10.0f}")
    print("images/s of each bucket, bound")
    for size in BUCKETS:
        bound = BucketedExecutor({size: session(model, device, size)}, device)
        batch = random_latents(model, size)
        print(f"  {size:<12}{throughput(lambda: len(bound(batch))):10.0f}")  # noqa: B023


def measure_exactness(model: bytes, device: str) -> None:
    """Differences of an image between batch sizes, and between places in a batch."""
    print(
        f"\nof 16 images, different from the bucket of 16; and after a shift of {SHIFT_ROWS} rows"
    )
    feeds = random_latents(model, 16)
    for tf32 in ("0", "1"):
        reference = BucketedExecutor({16: session(model, device, 16, use_tf32=tf32)}, device)
        expected = reference(feeds)
        for size in BUCKETS:
            bucket = BucketedExecutor({size: session(model, device, size, use_tf32=tf32)}, device)
            step = min(size, 16)
            images = np.concatenate([bucket(rows(feeds, i, step)) for i in range(0, 16, step)])
            different = int((images != expected).any(axis=(1, 2, 3)).sum())
            largest = int(np.abs(images.astype(int) - expected).max())
            print(f"  tf32 {tf32}, bucket {size:<4} {different:3} images, by at most {largest}/255")
        shifted = {name: np.roll(values, SHIFT_ROWS, axis=0) for name, values in feeds.items()}
        images = np.roll(reference(shifted), -SHIFT_ROWS, axis=0)
        different = int((images != expected).any(axis=(1, 2, 3)).sum())
        print(f"  tf32 {tf32}, shifted     {different:3} images")


def measure_graphs(model: bytes, device: str) -> None:
    """Latency without and with CUDA graphs."""
    print("\nmilliseconds of a run, bound: plain and as a captured graph")
    for size in (1, 16):
        feeds = random_latents(model, size)
        plain = BucketedExecutor({size: session(model, device, size)}, device)
        graph = BucketedExecutor(
            {size: session(model, device, size, enable_cuda_graph="1")}, device
        )
        for _ in range(CAPTURE_RUNS):
            graph(feeds)
        times = [1000 * size / throughput(lambda: len(run(feeds))) for run in (plain, graph)]  # noqa: B023
        same = np.array_equal(plain(feeds), graph(feeds))
        print(f"  {size:<4}{times[0]:8.3f}{times[1]:8.3f}  {'same' if same else 'other'} images")


def measure_copies(device: str) -> None:
    """Time to copy images from the device, by type."""
    print("\nmicroseconds to copy 64 images of 64x64 from the device")
    for dtype in (np.uint8, np.float32):
        value = ort.OrtValue.ortvalue_from_shape_and_type((64, 64, 64, 3), dtype, device, 0)
        microseconds = 64e6 / throughput(lambda: len(value.numpy()))  # noqa: B023
        print(f"  {np.dtype(dtype).name:<10}{microseconds:8.0f}")


def measure_memory(model: bytes, device: str) -> None:
    """Growth of GPU memory over requests of random sizes."""
    print(f"\nMB of GPU memory before and after {MEMORY_REQUESTS} requests of 1 to 64 images")
    executor = BucketedExecutor({n: session(model, device, n) for n in BUCKETS}, device)
    feeds, random = random_latents(model, max(BUCKETS)), np.random.default_rng(0)
    for size in BUCKETS:
        executor(rows(feeds, 0, size))
    before = gpu_memory(device)
    for count in random.integers(1, max(BUCKETS) + 1, MEMORY_REQUESTS).tolist():
        executor(rows(feeds, 0, count))
    print(f"  {before} {gpu_memory(device)}")


def gpu_memory(device: str) -> str:
    """Used memory of the GPU in MiB, as text; "-" on the CPU."""
    if device == "cpu":
        return "-"
    query = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
    return subprocess.run(query, check=True, capture_output=True, text=True).stdout.strip()


@click.command()
@click.option(
    "--model", type=click.Path(exists=True, path_type=Path), help="Unconditional model file."
)
@click.option("--device", type=click.Choice(["cuda", "cpu"]), default="cuda", show_default=True)
def main(model: Path | None, device: str) -> None:
    """Measure the choices of the service's CUDA sessions."""
    if device == "cuda":
        ort.preload_dlls(directory="")
    with tempfile.TemporaryDirectory() as folder:
        content = (model or untrained_model(Path(folder))).read_bytes()
    print(f"ONNX Runtime {ort.__version__}, {device}")
    measure_sizes(content, device)
    measure_exactness(content, device)
    measure_graphs(content, device)
    measure_copies(device)
    measure_memory(content, device)


if __name__ == "__main__":
    main()
