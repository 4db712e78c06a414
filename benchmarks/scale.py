"""Cost and limits at scale: measured rates of one core, and arithmetic from them.

    python -m benchmarks.scale [--model anime-faces-free] [--core-hour 0.04]

Rates of one core and file sizes are measured. Prices, network speed and the rate of preemptions are
assumptions, set by options. From both follow the cost of images, the first bottleneck, and two
simulations: shards on preemptible machines, and a cache in front of permanent addresses.
``docs/scale.md`` explains the tables.
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

from benchmarks.serve import PORTS, PYTHON, Scenario, load, server
from service.core import cpus
from service.core.latents import MAX_INDEX
from service.core.manifest import MODEL_FILE
from service.formats.images import png_record
from service.formats.records import ImageRecord
from service.formats.registry import open_writer
from service.inference.model import load_model
from service.inference.seeds import SeedImages
from service.inference.session import SessionFactory
from service.inference.source import run_batch

ROOT = Path(__file__).parent.parent
PER_SHARD = 10_000
IN_ALL = 2e9
"""Images generated in the simulation of preemptions."""
REPLACED = 60
"""Seconds until a preempted worker is replaced."""
HOUR, YEAR = 3600.0, 365.25 * 24 * 3600
SERVED = (Scenario("n=1", 32, 1, "bulk"), Scenario("n=16", 8, 16, "bulk"))


@dataclass(frozen=True)
class Rates:
    """Measured rates of one core (images per second) and sizes (bytes per image)."""

    compute: float
    encode: float
    pack: float
    png: float
    tar: float
    json: float
    served: dict[str, float]
    """Images per second over HTTP, by scenario."""

    @property
    def bulk(self) -> float:
        """Rate of computing, encoding and packing together."""
        return 1 / (1 / self.compute + 1 / self.encode + 1 / self.pack)


def rate(work: Callable[[], int], seconds: float) -> float:
    """Images per second of ``work``, which returns how many it made."""
    work()
    made, started = 0, time.perf_counter()
    while time.perf_counter() < started + seconds:
        made += work()
    return made / (time.perf_counter() - started)


def measure(folder: Path, seconds: float) -> Rates:
    """Measure the model in ``folder`` on the first 256 images of seed 3, repeated."""
    model = load_model(folder / MODEL_FILE, SessionFactory("cpu", 1))
    source, size = SeedImages(model, seed=3, indices=range(256)), model.largest_batch
    batches = [range(first, first + size) for first in range(0, 256, size)]
    turns = itertools.cycle(batches)
    made = [run_batch([(source, batch)], exclusive=False)[0] for batch in batches]
    images = [pair for frames, pixels in made for pair in zip(frames, pixels, strict=True)]
    records = [png_record(frame, pixels) for frame, pixels in images]

    def compute() -> int:
        batch = next(turns)
        run_batch([(source, batch)], exclusive=False)
        return len(batch)

    def encode() -> int:
        for frame, pixels in images:
            png_record(frame, pixels)
        return len(images)

    def shard() -> bytes:
        packing = open_writer("webdataset", [], (len(records),))
        return b"".join([packing.add(records), *packing.end()])

    def pack() -> int:
        hashlib.sha256(shard()).digest()
        return len(records)

    return Rates(
        compute=rate(compute, seconds),
        encode=rate(encode, seconds),
        pack=rate(pack, seconds),
        png=sum(len(each.image) for each in records) / len(records),
        tar=len(shard()) / len(records),
        json=sum(map(len, map(as_json, records))) / len(records),
        served=serve(folder, seconds),
    )


def as_json(record: ImageRecord) -> str:
    """Image as in a JSON response."""
    data = base64.b64encode(record.image).decode()
    told = {"index": record.index, "labels": record.labels, "url": record.url, "data": data}
    return json.dumps(told)


def serve(folder: Path, seconds: float) -> dict[str, float]:
    """Images per second and core over HTTP, with only this model loaded."""
    with tempfile.TemporaryDirectory() as models:
        version = Path(models) / folder.parent.name / folder.name
        version.parent.mkdir()
        version.symlink_to(folder.resolve())
        command = [PYTHON, "-m", "service", "--models", models, "--max-queue", "65536"]
        with server("figment", [*command, "--max-wait", "30", "--port", str(PORTS["figment"])]):
            return {
                each.name: load("figment", each, seconds).requests_per_second
                * each.n
                / cpus.available()
                for each in SERVED
            }


# Arithmetic.


@dataclass(frozen=True)
class Assumed:
    """Assumed prices and machines."""

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


def bill(rates: Rates, assumed: Assumed) -> list[list[str]]:
    """Resources for a number of images made in bulk."""
    rows = []
    for images in (1e6, 1e8, 1e10, 1e12):
        hours = images / rates.bulk / HOUR
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
                f"{gigabytes * 8 / assumed.gbit / HOUR:,.2f}",
                f"{images / PER_SHARD:,.0f}",
            ]
        )
    return rows


def limits(rates: Rates, assumed: Assumed) -> list[list[str]]:
    """Images per second of a machine at which each stage saturates."""
    network = assumed.gbit * 1e9 / 8
    everything = assumed.cores * rates.bulk
    full = {
        f"{assumed.cores} cores, all of it": everything,
        f"{assumed.cores} cores that encode and pack only, for a GPU": assumed.cores
        / (1 / rates.encode + 1 / rates.pack),
        f"{assumed.gbit:g} Gbit/s, PNG files in a tar": network / rates.tar,
        f"{assumed.gbit:g} Gbit/s, PNG in JSON": network / rates.json,
    }
    rows = [[name, f"{most:,.0f}", f"{most / everything:,.1f}"] for name, most in full.items()]
    years = (MAX_INDEX + 1) / everything / YEAR
    return [*rows, ["indices of one seed", f"used up after {years:,.0f} years", "-"]]


def an_image(rates: Rates, assumed: Assumed) -> list[list[str]]:
    """Costs of generating, storing and sending an image."""
    gigabytes = rates.tar / 1e9
    making = assumed.core_hour / HOUR / rates.bulk
    costs = {
        "made in bulk": making,
        **{
            f"made and sent over HTTP, {name}": assumed.core_hour / HOUR / served
            for name, served in rates.served.items()
        },
        "kept for a month": gigabytes * assumed.gb_month,
        "sent out of a cloud": gigabytes * assumed.gb_out,
    }
    return [[name, f"{cost * 1e6:,.4f}", f"{cost / making:,.1f}"] for name, cost in costs.items()]


# Simulations.


def interrupted(rates: Rates, workers: int, kills_an_hour: float, seed: int) -> list[list[str]]:
    """Generation of the same images in shards of several sizes on preemptible workers.

    Each is replaced after a minute, and a shard is begun anew by whoever takes it. How much longer
    workers are at it than undisturbed: by events, and by (exp(k t) - 1) (1 / k + 60 s) / t, the
    mean of starting anew until a span of t goes well, with a minute for each time that it does not.
    """
    rows = []
    for images in (1_000, 10_000, 100_000, 1_000_000):
        seconds = images / rates.bulk
        shards = int(IN_ALL / images)
        random = np.random.default_rng(seed)
        free = [0.0] * workers
        lost = 0
        for _ in range(shards):
            now = heapq.heappop(free)
            while (alive := random.exponential(HOUR / kills_an_hour)) < seconds:
                now += alive + REPLACED
                lost += 1
            heapq.heappush(free, now + seconds)
        k = kills_an_hour / HOUR
        formula = np.expm1(k * seconds) * (1 / k + REPLACED) / seconds
        ideal = shards * seconds / workers
        rows.append(
            [
                f"{images:,}",
                f"{seconds:,.0f}",
                f"{images * rates.tar / 1e6:,.0f}",
                f"{sum(free) / workers / ideal:.3f}",
                f"{formula:.3f}",
                f"{lost:,}",
            ]
        )
    return rows


def cached(rates: Rates, assumed: Assumed, seed: int) -> list[list[str]]:
    """LRU cache of addresses, whose popularity falls as 1 / rank^s."""
    addresses, asked, wanted = 1_000_000, 1_000_000, 100_000
    per_core = rates.served["n=1"]
    rows = []
    for s, share in itertools.product((0.6, 0.8, 1.0), (0.01, 0.1)):
        weights = 1 / np.arange(1, addresses + 1) ** s
        random = np.random.default_rng(seed)
        ranks = random.choice(addresses, asked, p=weights / weights.sum())
        hits = hit_rate(ranks.tolist(), int(addresses * share))
        cores = wanted * (1 - hits) / per_core
        gigabytes = addresses * share * rates.png / 1e9
        machines = cores / assumed.cores
        row = f"{s:g}", f"{share:.0%}", f"{gigabytes:.2f}", f"{hits:.0%}"
        rows.append([*row, f"{cores:,.0f}", f"{machines:,.1f}"])
    cores = wanted / per_core
    return [["any", "none", "0.00", "0%", f"{cores:,.0f}", f"{cores / assumed.cores:,.1f}"], *rows]


def hit_rate(addresses: Sequence[int], size: int) -> float:
    """Hit rate over the second half of ``addresses``; the first half fills the cache."""
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


def table(title: str, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Format as Markdown."""
    print(f"\n{title}\n\n| {' | '.join(heads)} |\n|{' --- |' * len(heads)}")
    for row in rows:
        print(f"| {' | '.join(row)} |")


@click.command()
@click.option("--model", default="anime-faces-free", show_default=True)
@click.option("--version", default="2", show_default=True)
@click.option("--seconds", default=5.0, show_default=True, help="Of each measurement.")
@click.option("--core-hour", default=0.04, show_default=True, help="USD.")
@click.option("--gb-month", default=0.02, show_default=True, help="USD, to keep a GB.")
@click.option("--gb-out", default=0.05, show_default=True, help="USD, to send a GB out.")
@click.option("--gbit", default=10.0, show_default=True, help="Of a machine's network.")
@click.option("--cores", default=64, show_default=True, help="Of a machine.")
@click.option("--kills", default=0.2, show_default=True, help="Of each worker, in an hour.")
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
    assumed = Assumed(core_hour, gb_month, gb_out, gbit, cores)
    rates = measure(ROOT / "models" / model / version, seconds)
    print(f"python -m benchmarks.scale {' '.join(sys.argv[1:])}".rstrip())
    table(
        f"Measured, of one core, {model} version {version}",
        ["what", "images/s", "bytes per image"],
        [
            ["draw and compute", f"{rates.compute:,.0f}", ""],
            ["encode as PNG", f"{rates.encode:,.0f}", f"{rates.png:,.0f}"],
            ["pack into a tar, with its sum", f"{rates.pack:,.0f}", f"{rates.tar:,.0f}"],
            ["all three", f"{rates.bulk:,.0f}", ""],
            *[[f"over HTTP, {name}", f"{each:,.0f}", ""] for name, each in rates.served.items()],
        ],
    )
    table(
        f"In bulk, at {core_hour:g} USD a core and hour",
        [
            "images",
            "core hours",
            f"days of {cores} cores",
            "USD",
            "GB",
            "USD a month to keep",
            "USD to send out",
            f"hours of {gbit:g} Gbit/s",
            "shards",
        ],
        bill(rates, assumed),
    )
    table(
        "What an image costs",
        ["what", "USD a million", "times making it"],
        an_image(rates, assumed),
    )
    table("What binds", ["part", "images/s", "of all cores"], limits(rates, assumed))
    table(
        f"{IN_ALL:,.0f} images by 1,000 workers, each killed {kills:g} times an hour",
        ["images a shard", "seconds", "MB", "times as long", "by formula", "kills"],
        interrupted(rates, 1000, kills, seed=1),
    )
    table(
        "100,000 requests/s for single addresses, of a million",
        ["s", "cached", "GB", "hits", "cores behind it", f"machines of {cores}"],
        cached(rates, assumed, seed=1),
    )


if __name__ == "__main__":
    main()
