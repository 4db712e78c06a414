"""Overhead of Ray compared with a plain server, and outages after losing a replica or node.

    unshare -n bash -c 'ip link set lo up; python -m benchmarks.cluster [--rounds 3] [--seconds 4]'

Starts both on this machine: a plain server, and a cluster of two nodes with a replica of one thread
on each, as many threads as the plain server gets. They are measured alternately; then a
replica is killed under load, and then a node. Ray listens on all addresses, hence the separate
network namespace. The model is an untrained DCGAN of width 64.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import httpx
import yaml

from benchmarks.crowd import Crowd
from benchmarks.load import Load
from benchmarks.serve import PORTS, PYTHON, ROOT, server, untrained

CONFIG = ROOT / "ops" / "ray" / "serve.yaml"
PORT = 8767
THREADS = 2
URLS = {"plain": f"http://127.0.0.1:{PORTS['figment']}", "Ray": f"http://127.0.0.1:{PORT}"}


@dataclass(frozen=True)
class Scenario:
    connections: int
    n: int

    def __str__(self) -> str:
        alone = self.connections == 1
        return f"n={self.n}, {'alone' if alone else f'{self.connections} connections'}"


SCENARIOS = (Scenario(1, 1), Scenario(32, 1), Scenario(1, 16), Scenario(8, 16))


class Nodes:
    """Running ``benchmarks.nodes`` process."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.started: float = self._answer()["seconds"]

    def ask(self, *command: Any) -> Any:
        assert self._process.stdin is not None
        print(json.dumps(command), file=self._process.stdin, flush=True)
        return self._answer()

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the cluster has ended"
        return json.loads(line)


def here(port: int, variables: dict[str, str]) -> dict[str, Any]:
    """Shipped Serve config, adapted to two small nodes on one machine."""
    found: dict[str, Any] = yaml.safe_load(CONFIG.read_text())
    found["http_options"] = {"host": "127.0.0.1", "port": port}
    (application,) = found["applications"]
    application["runtime_env"]["env_vars"] = variables
    (deployment,) = application["deployments"]
    deployment["ray_actor_options"]["num_cpus"] = 1
    deployment["autoscaling_config"]["max_replicas"] = 2
    return found


@contextmanager
def nodes(config: dict[str, Any]) -> Iterator[Nodes]:
    """Run a cluster with ``config`` within the context."""
    # Socket paths must be short, so this is not below the user's folders.
    folder = tempfile.mkdtemp(prefix="figment-ray-")
    path = Path(folder) / "serve.yaml"
    path.write_text(yaml.safe_dump(config))
    ours = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled", "RAY_TMPDIR": folder}
    process = subprocess.Popen(
        [PYTHON, "-m", "benchmarks.nodes", str(path)],
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if not name.startswith("FIGMENT_")}
        | ours
        | {"PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdin is not None and process.stdout is not None
    try:
        with process.stdout:
            yield Nodes(process)
            process.stdin.close()
            process.wait(60)
    finally:
        with contextlib.suppress(OSError):
            process.stdin.close()
        process.wait(60)
        shutil.rmtree(folder, ignore_errors=True)


def load(url: str, scenario: Scenario, seconds: float) -> Load:
    """Run ``benchmarks.load`` in a process of its own."""
    command = [PYTHON, "-m", "benchmarks.load", f"{url}/generate?format=png"]
    body = json.dumps({"n": scenario.n, "seed": 3})
    options = [f"--connections={scenario.connections}", f"--seconds={seconds}"]
    done = subprocess.run([*command, body, *options], cwd=ROOT, check=True, capture_output=True)
    return Load(**json.loads(done.stdout))


def measure(rounds: int, seconds: float) -> dict[tuple[str, Scenario], list[Load]]:
    found: dict[tuple[str, Scenario], list[Load]] = {}
    for _ in range(rounds):
        for scenario in SCENARIOS:
            for name, url in URLS.items():
                found.setdefault((name, scenario), []).append(load(url, scenario, seconds))
    return found


def report(found: dict[tuple[str, Scenario], list[Load]]) -> None:
    print(
        f"{'':<21}{'plain':>7}{'p50 ms':>9}{'p99':>7}{'Ray':>9}{'p50 ms':>9}{'p99':>7}"
        f"{'share':>8}{'Ray adds':>12}{'errors':>8}"
    )
    for scenario in SCENARIOS:
        plain, ray = (found[name, scenario] for name in URLS)
        rates = [_median(loads, "requests_per_second") * scenario.n for loads in (plain, ray)]
        shares = [
            b.requests_per_second / a.requests_per_second for a, b in zip(plain, ray, strict=True)
        ]
        # Busy: CPU time per request; alone: added latency.
        cores = 1 if scenario.connections == 1 else THREADS
        adds = 1000 * cores * (1 / rates[1] - 1 / rates[0])
        times = [_median(loads, name) for loads in (plain, ray) for name in ("p50", "p99")]
        print(
            f"{scenario!s:<21}{rates[0]:7.0f}{times[0]:9.1f}{times[1]:7.1f}"
            f"{rates[1]:9.0f}{times[2]:9.1f}{times[3]:7.1f}"
            f"{statistics.median(shares):8.2f}{adds:9.2f} ms"
            f"{sum(each.errors for each in (*plain, *ray)):8}"
        )


def _median(loads: list[Load], name: str) -> float:
    found: float = statistics.median(getattr(each, name) for each in loads)
    return found


def replicas_metrics(url: str, headers: dict[str, str] | None = None, count: int = 2) -> list[str]:
    """``GET /metrics`` of each replica. Start times identify them."""
    found: dict[str, str] = {}
    end = time.monotonic() + 60
    with httpx.Client(timeout=60, headers=headers) as client:
        while len(found) < count:
            assert time.monotonic() < end, f"only {len(found)} replicas answer"
            text = client.get(f"{url}/metrics").text
            start = re.search(r"^process_start_time_seconds \S+$", text, re.MULTILINE)
            assert start is not None, text
            found[start[0]] = text
    return list(found.values())


def mean_batch(seconds: float) -> float:
    """Mean images per batch of a replica, with 32 clients of one image each."""

    def counted() -> tuple[float, float]:
        texts = replicas_metrics(URLS["Ray"])
        images, batches = (
            sum(
                float(value)
                for text in texts
                for value in re.findall(rf"^figment_batch_images_{name}{{.*}} (\S+)$", text, re.M)
            )
            for name in ("sum", "count")
        )
        return images, batches

    before = counted()
    load(URLS["Ray"], Scenario(32, 1), seconds)
    after = counted()
    return (after[0] - before[0]) / (after[1] - before[1])


def disturb(cluster: Nodes, what: str, *command: Any, seconds: float) -> None:
    """Print what 32 clients on separate connections observe during a loss."""
    crowd = Crowd(f"{URLS['Ray']}/generate?format=png", b'{"n": 1, "seed": 3}')
    with crowd.running(32):
        time.sleep(3)
        cluster.ask(*command)
        time.sleep(seconds)
    failed = ", ".join(f"{number} {why}" for why, number in crowd.failed.items()) or "none"
    print(
        f"{what}: {crowd.answers} answers, failed: {failed}; longest request {crowd.longest:.2f} s"
    )


@click.command()
@click.option("--rounds", default=3)
@click.option("--seconds", default=4.0)
def main(rounds: int, seconds: float) -> None:
    with tempfile.TemporaryDirectory() as folder:
        models = untrained(Path(folder)).parent.parent.parent
        variables = {"FIGMENT_MODELS": str(models), "FIGMENT_ALLOW_ANONYMOUS": "true"}
        # Wait limit above any wait here, so that no request is rejected.
        variables["FIGMENT_MAX_WAIT"] = "30"
        plain = [PYTHON, "-m", "service", "--models", str(models), "--max-wait", "30"]
        plain += ["--threads", str(THREADS), "--port", str(PORTS["figment"])]
        with nodes(here(PORT, variables)) as cluster, server("figment", plain) as (_, start):
            report(measure(rounds, seconds))
            print(f"\nmean batch of a replica, 32 connections: {mean_batch(seconds):.1f} images")
            print(f"start: plain {start:.1f} s, cluster {cluster.started:.0f} s")
            victim = cluster.ask("replicas")[0]
            disturb(cluster, "a replica killed", "kill", victim, seconds=20)
            disturb(cluster, "a node lost", "remove_node", seconds=40)


if __name__ == "__main__":
    main()
