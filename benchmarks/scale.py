"""Cost and limits at scale: measured rates of one core, and arithmetic from them.

    python -m benchmarks.scale [--model anime-faces-free] [--core-hour 0.04]

Needs the free port 8765; takes about a minute. Rates of one core and file sizes are measured.
Prices, network speed and the rate of preemptions are assumptions, set by options. From both follow
the cost of images, the first bottleneck, and two simulations: shards on preemptible machines, and a
cache in front of permanent addresses. ``docs/scale.md`` explains the tables.
"""

from __future__ import annotations

import base64
import hashlib
import heapq
import itertools
import json
import sys
import tempfile
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np

from benchmarks.serve import PORTS, PYTHON, ROOT, Scenario, run_load, server
from service.core import cpus
from service.core.latents import MAX_INDEX
from service.core.manifest import MODEL_FILE
from service.formats.images import png_record
from service.formats.layout import Layout
from service.formats.records import ImageRecord
from service.formats.registry import open_writer
from service.inference.model import load_model
from service.inference.seeds import SeedImages
from service.inference.session import SessionFactory
from service.inference.source import run_batch

IMAGES_PER_SHARD = 10_000
"""Default maximum of ``make-dataset``."""
SAMPLE_IMAGES = 256
"""Images of which rates and sizes are measured; sizes of PNG files vary by image."""
SIMULATED_IMAGES = 2e9
"""Images in the simulation of preemptions: about a hundred kills with the default options."""
SIMULATED_WORKERS = 1000
REPLACEMENT_SECONDS = 60
"""Assumed time until a preempted worker is replaced."""
CACHE_ADDRESSES = 1_000_000
CACHE_REQUESTS = 1_000_000
"""Requests in the simulation of a cache."""
REQUESTS_PER_SECOND = 100_000
"""Assumed load in front of the cache."""
HOUR_SECONDS, YEAR_SECONDS = 3600.0, 365.25 * 24 * 3600
HTTP_SCENARIOS = (Scenario("n=1", 32, 1, "bulk"), Scenario("n=16", 8, 16, "bulk"))


@dataclass(frozen=True)
class Rates:
    """Measured rates of one core (images per second) and sizes (bytes per image)."""

    compute: float
    encode: float
    pack: float
    png: float
    tar: float
    json: float
    http: dict[str, float]
    """Images per second over HTTP, by scenario."""

    @property
    def bulk(self) -> float:
        """Rate of computing, encoding and packing together."""
        return 1 / (1 / self.compute + 1 / self.encode + 1 / self.pack)


def throughput(work: Callable[[], int], seconds: float) -> float:
    """Images per second of ``work``, which returns its number of images, after one warm-up."""
    work()
    count, started = 0, time.perf_counter()
    while time.perf_counter() < started + seconds:
        count += work()
    return count / (time.perf_counter() - started)


def measure(folder: Path, seconds: float) -> Rates:
    """Measure the model in ``folder`` on the first images of seed 3, repeated."""
    model = load_model(folder / MODEL_FILE, SessionFactory("cpu", 1))
    source = SeedImages(model, seed=3, indices=range(SAMPLE_IMAGES))
    size = model.largest_batch
    batches = [range(first, first + size) for first in range(0, SAMPLE_IMAGES, size)]
    next_batch = itertools.cycle(batches).__next__
    rendered = [run_batch([(source, batch)], exclusive=False)[0] for batch in batches]
    images = [pair for infos, pixels in rendered for pair in zip(infos, pixels, strict=True)]
    records = [png_record(info, pixels) for info, pixels in images]

    def compute() -> int:
        batch = next_batch()
        run_batch([(source, batch)], exclusive=False)
        return len(batch)

    def encode() -> int:
        for info, pixels in images:
            png_record(info, pixels)
        return len(images)

    def shard() -> bytes:
        writer = open_writer("webdataset", Layout({}), (len(records),))
        return b"".join([writer.add(records), *writer.end()])

    def pack() -> int:
        hashlib.sha256(shard()).digest()
        return len(records)

    return Rates(
        compute=throughput(compute, seconds),
        encode=throughput(encode, seconds),
        pack=throughput(pack, seconds),
        png=sum(len(record.image) for record in records) / len(records),
        tar=len(shard()) / len(records),
        json=sum(map(len, map(as_json, records))) / len(records),
        http=measure_http(folder, seconds),
    )


def as_json(record: ImageRecord) -> str:
    """One image as in a JSON response."""
    data = base64.b64encode(record.image).decode()
    return json.dumps(
        {"index": record.index, "labels": record.labels, "url": record.url, "data": data}
    )


def measure_http(folder: Path, seconds: float) -> dict[str, float]:
    """Images per second and core over HTTP, with only this model loaded."""
    with tempfile.TemporaryDirectory() as models:
        version = Path(models) / folder.parent.name / folder.name
        version.parent.mkdir()
        version.symlink_to(folder.resolve())
        command = [PYTHON, "-m", "service", "--models", models, "--max-queue", "65536"]
        with server("figment", [*command, "--max-wait", "30", "--port", str(PORTS["figment"])]):
            return {
                scenario.name: run_load("figment", scenario, seconds).requests_per_second
                * scenario.n
                / cpus.available()
                for scenario in HTTP_SCENARIOS
            }


# Arithmetic.


@dataclass(frozen=True)
class Assumptions:
    """Prices and machines."""

    core_hour: float
    """Price of a core for an hour in USD."""
    gb_month: float
    """Price of storing a GB for a month in USD."""
    gb_out: float
    """Price of sending a GB out of a cloud in USD."""
    gbit: float
    """Network speed of a machine in Gbit/s."""
    cores: int
    """Cores of a machine."""


def bulk_rows(rates: Rates, assumed: Assumptions) -> list[list[str]]:
    """Time, space and price of numbers of images made in bulk."""
    rows = []
    for images in (1e6, 1e8, 1e10, 1e12):
        hours = images / rates.bulk / HOUR_SECONDS
        gigabytes = images * rates.tar / 1e9
        rows.append(
            [
                f"{images:,.0f}",
                f"{hours:,.1f}",
                f"{hours / 24 / assumed.cores:,.2f}",
                f"{hours * assumed.core_hour:,.2f}",
                f"{gigabytes:,.0f}",
                f"{gigabytes * assumed.gb_month:,.2f}",
                f"{gigabytes * assumed.gb_out:,.2f}",
                f"{gigabytes * 8 / assumed.gbit / HOUR_SECONDS:,.2f}",
                f"{images / IMAGES_PER_SHARD:,.0f}",
            ]
        )
    return rows


def limit_rows(rates: Rates, assumed: Assumptions) -> list[list[str]]:
    """Images per second of a machine at which each stage saturates."""
    network = assumed.gbit * 1e9 / 8
    all_stages = assumed.cores * rates.bulk
    limits = {
        f"{assumed.cores} cores, all stages": all_stages,
        f"{assumed.cores} cores that only encode and pack, beside a GPU": assumed.cores
        / (1 / rates.encode + 1 / rates.pack),
        f"{assumed.gbit:g} Gbit/s, PNG files in a tar": network / rates.tar,
        f"{assumed.gbit:g} Gbit/s, PNG in JSON": network / rates.json,
    }
    rows = [[name, f"{rate:,.0f}", f"{rate / all_stages:,.1f}"] for name, rate in limits.items()]
    years = (MAX_INDEX + 1) / all_stages / YEAR_SECONDS
    return [*rows, ["indices of one seed", f"used up after {years:,.0f} years", "-"]]


def image_cost_rows(rates: Rates, assumed: Assumptions) -> list[list[str]]:
    """Costs of generating, storing and sending an image."""
    gigabytes = rates.tar / 1e9
    core_second = assumed.core_hour / HOUR_SECONDS
    bulk = core_second / rates.bulk
    costs = {
        "made in bulk": bulk,
        **{
            f"made and sent over HTTP, {name}": core_second / rate
            for name, rate in rates.http.items()
        },
        "kept for a month": gigabytes * assumed.gb_month,
        "sent out of a cloud": gigabytes * assumed.gb_out,
    }
    return [[name, f"{cost * 1e6:,.4f}", f"{cost / bulk:,.1f}"] for name, cost in costs.items()]


# Simulations.


def preemption_rows(rates: Rates, kills_per_hour: float, seed: int) -> list[list[str]]:
    """Time of the same images in shards of several sizes, relative to workers never killed.

    A killed worker is replaced after ``REPLACEMENT_SECONDS`` and its shard is made again. Simulated
    for every kill, and by the formula (exp(k t) - 1) (1 / k + 60 s) / t: the mean time of repeating
    a shard of duration t until it completes, at k kills per second, with a minute for each kill.
    """
    rows = []
    for images in (1_000, 10_000, 100_000, 1_000_000):
        seconds = images / rates.bulk
        shards = int(SIMULATED_IMAGES / images)
        random = np.random.default_rng(seed)
        free_at = [0.0] * SIMULATED_WORKERS
        kills = 0
        for _ in range(shards):
            now = heapq.heappop(free_at)
            while (alive := random.exponential(HOUR_SECONDS / kills_per_hour)) < seconds:
                now += alive + REPLACEMENT_SECONDS
                kills += 1
            heapq.heappush(free_at, now + seconds)
        k = kills_per_hour / HOUR_SECONDS
        formula = np.expm1(k * seconds) * (1 / k + REPLACEMENT_SECONDS) / seconds
        ideal = shards * seconds / SIMULATED_WORKERS
        rows.append(
            [
                f"{images:,}",
                f"{seconds:,.0f}",
                f"{images * rates.tar / 1e6:,.0f}",
                f"{sum(free_at) / SIMULATED_WORKERS / ideal:.3f}",
                f"{formula:.3f}",
                f"{kills:,}",
            ]
        )
    return rows


def cache_rows(rates: Rates, assumed: Assumptions, seed: int) -> list[list[str]]:
    """Hit rate of an LRU cache of addresses whose popularity falls as 1 / rank^s."""
    per_core = rates.http["n=1"]
    rows = []
    for s, share in itertools.product((0.6, 0.8, 1.0), (0.01, 0.1)):
        weights = 1 / np.arange(1, CACHE_ADDRESSES + 1) ** s
        random = np.random.default_rng(seed)
        ranks = random.choice(CACHE_ADDRESSES, CACHE_REQUESTS, p=weights / weights.sum())
        hits = hit_rate(ranks.tolist(), int(CACHE_ADDRESSES * share))
        cores = REQUESTS_PER_SECOND * (1 - hits) / per_core
        gigabytes = CACHE_ADDRESSES * share * rates.png / 1e9
        machines = cores / assumed.cores
        row = f"{s:g}", f"{share:.0%}", f"{gigabytes:.2f}", f"{hits:.0%}"
        rows.append([*row, f"{cores:,.0f}", f"{machines:,.1f}"])
    cores = REQUESTS_PER_SECOND / per_core
    return [["any", "none", "0.00", "0%", f"{cores:,.0f}", f"{cores / assumed.cores:,.1f}"], *rows]


def hit_rate(addresses: Sequence[int], size: int) -> float:
    """Hit rate over the second half of ``addresses``; the first half fills the cache.

    size: addresses in the cache.
    """
    cache: OrderedDict[int, None] = OrderedDict()
    hits = 0
    for position, address in enumerate(addresses):
        if address in cache:
            cache.move_to_end(address)
            hits += position >= len(addresses) // 2
        else:
            cache[address] = None
            if len(cache) > size:
                cache.popitem(last=False)
    return hits / (len(addresses) - len(addresses) // 2)


def print_table(title: str, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a Markdown table."""
    print(f"\n{title}\n\n| {' | '.join(heads)} |\n|{' --- |' * len(heads)}")
    for row in rows:
        print(f"| {' | '.join(row)} |")


@click.command()
@click.option("--model", default="anime-faces-free", show_default=True)
@click.option("--version", default="2", show_default=True)
@click.option("--seconds", default=5.0, show_default=True, help="Duration of each measurement.")
@click.option("--core-hour", default=0.04, show_default=True, help="Price of a core-hour in USD.")
@click.option(
    "--gb-month", default=0.02, show_default=True, help="Price of keeping a GB for a month in USD."
)
@click.option(
    "--gb-out", default=0.05, show_default=True, help="Price of sending a GB out of a cloud in USD."
)
@click.option(
    "--gbit", default=10.0, show_default=True, help="Network speed of a machine in Gbit/s."
)
@click.option("--cores", default=64, show_default=True, help="Cores of a machine.")
@click.option("--kills", default=0.2, show_default=True, help="Preemptions per worker and hour.")
def main(
    model: str,
    version: str,
    seconds: float,
    core_hour: float,
    gb_month: float,
    gb_out: float,
    gbit: float,
    cores: int,
    kills: float,
) -> None:
    """Measure the rates of one core, and compute costs, limits and simulations from them."""
    assumed = Assumptions(core_hour, gb_month, gb_out, gbit, cores)
    rates = measure(ROOT / "models" / model / version, seconds)
    print(f"python -m benchmarks.scale {' '.join(sys.argv[1:])}".rstrip())
    print_table(
        f"Measurements on one core, {model} version {version}",
        ["step", "images/s", "bytes per image"],
        [
            ["draw and compute", f"{rates.compute:,.0f}", ""],
            ["encode as PNG", f"{rates.encode:,.0f}", f"{rates.png:,.0f}"],
            ["pack into a tar, with its checksum", f"{rates.pack:,.0f}", f"{rates.tar:,.0f}"],
            ["all three", f"{rates.bulk:,.0f}", ""],
            *[[f"over HTTP, {name}", f"{rate:,.0f}", ""] for name, rate in rates.http.items()],
        ],
    )
    print_table(
        f"Sets made in bulk, at {core_hour:g} USD per core-hour",
        [
            "images",
            "core hours",
            f"days of {cores} cores",
            "USD",
            "GB",
            "USD per month to keep",
            "USD to send out",
            f"hours of {gbit:g} Gbit/s",
            "shards",
        ],
        bulk_rows(rates, assumed),
    )
    print_table(
        "Cost of an image",
        ["image", "USD per million", "relative to making it"],
        image_cost_rows(rates, assumed),
    )
    print_table(
        "Limits of a machine", ["part", "images/s", "of all cores"], limit_rows(rates, assumed)
    )
    print_table(
        f"{SIMULATED_IMAGES:,.0f} images by {SIMULATED_WORKERS:,} workers, each killed {kills:g} "
        "times per hour",
        ["images per shard", "seconds", "MB", "relative time", "by formula", "kills"],
        preemption_rows(rates, kills, seed=1),
    )
    print_table(
        f"{REQUESTS_PER_SECOND:,} requests/s for single addresses out of {CACHE_ADDRESSES:,}",
        ["s", "cached", "GB", "hits", "cores behind it", f"machines of {cores} cores"],
        cache_rows(rates, assumed, seed=1),
    )


if __name__ == "__main__":
    main()
