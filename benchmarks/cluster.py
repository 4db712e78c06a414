"""Overhead of Ray compared with a plain server, and outages after losing a replica or node.

    unshare -n bash -c 'ip link set lo up; python -m benchmarks.cluster [--rounds 3] [--seconds 4]'

Needs Ray, PyTorch and the free ports 8765 and 8767; takes 8 times ``--seconds`` per round, and two
minutes for the start and the outages. Starts both on this machine: a plain server, and a cluster of
two nodes with a replica of one thread on each, as many threads as the plain server gets. They are
measured alternately; then a replica is killed under load, and then a node. Ray listens on all
addresses, hence the separate network namespace. The model is an untrained DCGAN of width 64.
"""

from __future__ import annotations

import contextlib
import itertools
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

from benchmarks.load import Load, LoadResult, Policy, request
from benchmarks.serve import PORTS, PYTHON, ROOT, server, untrained_model

CONFIG = ROOT / "ops" / "ray" / "serve.yaml"
PORT = 8767
THREADS = 2
"""Worker threads of the plain server, and of both replicas together."""
STABLE_SECONDS = 3
"""Load before an outage."""
REPLICA_LOSS_SECONDS = 20
"""Observation after a replica is killed; another serves after a few seconds."""
NODE_LOSS_SECONDS = 40
"""Observation after a node is killed; Ray notices that after some ten seconds."""
URLS = {"plain": f"http://127.0.0.1:{PORTS['figment']}", "Ray": f"http://127.0.0.1:{PORT}"}


@dataclass(frozen=True)
class Scenario:
    """Closed-loop load of requests for ``n`` images."""

    connections: int
    n: int

    def __str__(self) -> str:
        alone = self.connections == 1
        return f"n={self.n}, {'alone' if alone else f'{self.connections} connections'}"


SCENARIOS = (Scenario(1, 1), Scenario(32, 1), Scenario(1, 16), Scenario(8, 16))


class Nodes:
    """Running ``benchmarks.ray_nodes`` process."""

    def __init__(self, process: subprocess.Popen[str], log: Path) -> None:
        """``log``: the stderr of the process."""
        self._process = process
        self._log = log
        self.pid = process.pid
        started = self._result()
        self.start_seconds: float = started["seconds"]
        self.address: str = started["address"]
        """Address of the Ray cluster, for ``ray.init``."""

    def call(self, *command: Any) -> Any:
        """Run a command of ``ray_nodes.RayNodes`` and return its result."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            print(json.dumps(command), file=self._process.stdin, flush=True)
        return self._result()

    def _result(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, f"the cluster has exited:\n{self._log.read_text(errors='replace')}"
        return json.loads(line)


def two_node_config(port: int, variables: dict[str, str]) -> dict[str, Any]:
    """Shipped Serve config, adapted to two small nodes on one machine.

    variables: environment variables of the replicas.
    """
    config: dict[str, Any] = yaml.safe_load(CONFIG.read_text())
    config["http_options"] = {"host": "127.0.0.1", "port": port}
    # Otherwise Serve ends a proxy that takes 5 s to start, as on a busy machine.
    serve = config["controller_options"]["runtime_env"]["env_vars"]
    serve["RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S"] = "60"
    (application,) = config["applications"]
    application["runtime_env"]["env_vars"] = variables
    (deployment,) = application["deployments"]
    deployment["ray_actor_options"]["num_cpus"] = 1
    deployment["autoscaling_config"]["max_replicas"] = 2
    return config


@contextmanager
def running_nodes(config: dict[str, Any]) -> Iterator[Nodes]:
    """Run a cluster with ``config`` within the context."""
    # Paths of Unix sockets have at most 107 bytes, so this folder is not below the user's folders.
    folder = tempfile.mkdtemp(prefix="figment-ray-")
    path = Path(folder) / "serve.yaml"
    path.write_text(yaml.safe_dump(config))
    log = Path(folder) / "stderr"
    inherited = {
        name: value for name, value in os.environ.items() if not name.startswith("FIGMENT_")
    }
    with log.open("w") as stderr:
        process = subprocess.Popen(
            [PYTHON, "-m", "benchmarks.ray_nodes", str(path)],
            cwd=ROOT,
            env=inherited
            | {
                "RAY_USAGE_STATS_ENABLED": "0",
                "RAY_AUTH_MODE": "disabled",
                "RAY_TMPDIR": folder,
                "PYTHONPATH": str(ROOT),
            },
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
        )
    assert process.stdin is not None and process.stdout is not None
    try:
        with process.stdout:
            yield Nodes(process, log)
            process.stdin.close()
            process.wait(60)
    finally:
        with contextlib.suppress(OSError):
            process.stdin.close()
        process.wait(60)
        shutil.rmtree(folder, ignore_errors=True)


def run_load(url: str, scenario: Scenario, seconds: float) -> LoadResult:
    """Run ``benchmarks.load`` in a process of its own."""
    command = [PYTHON, "-m", "benchmarks.load", f"{url}/generate?format=png"]
    body = json.dumps({"n": scenario.n, "seed": 3})
    options = [f"--connections={scenario.connections}", f"--seconds={seconds}"]
    process = subprocess.run([*command, body, *options], cwd=ROOT, check=True, capture_output=True)
    return LoadResult(**json.loads(process.stdout))


def measure(rounds: int, seconds: float) -> dict[tuple[str, Scenario], list[LoadResult]]:
    """Results by server (a key of ``URLS``) and scenario, one per round."""
    results: dict[tuple[str, Scenario], list[LoadResult]] = {}
    for _ in range(rounds):
        for scenario in SCENARIOS:
            for name, url in URLS.items():
                results.setdefault((name, scenario), []).append(run_load(url, scenario, seconds))
    return results


def report(results: dict[tuple[str, Scenario], list[LoadResult]]) -> None:
    print(
        f"{'':<21}{'plain':>7}{'p50 ms':>9}{'p99':>7}{'Ray':>9}{'p50 ms':>9}{'p99':>7}"
        f"{'share':>8}{'Ray adds':>12}{'errors':>8}"
    )
    for scenario in SCENARIOS:
        plain, ray = (results[name, scenario] for name in URLS)
        rates = [_median(loads, "requests_per_second") * scenario.n for loads in (plain, ray)]
        shares = [
            b.requests_per_second / a.requests_per_second for a, b in zip(plain, ray, strict=True)
        ]
        # Per image: added CPU time under load, added latency of a single connection.
        cores = 1 if scenario.connections == 1 else THREADS
        added_ms = 1000 * cores * (1 / rates[1] - 1 / rates[0])
        times = [_median(loads, name) for loads in (plain, ray) for name in ("p50", "p99")]
        print(
            f"{scenario!s:<21}{rates[0]:7.0f}{times[0]:9.1f}{times[1]:7.1f}"
            f"{rates[1]:9.0f}{times[2]:9.1f}{times[3]:7.1f}"
            f"{statistics.median(shares):8.2f}{added_ms:9.2f} ms"
            f"{sum(load.errors for load in (*plain, *ray)):8}"
        )


def _median(loads: list[LoadResult], name: str) -> float:
    median: float = statistics.median(getattr(load, name) for load in loads)
    return median


def replicas_metrics(cluster: Nodes, headers: dict[str, str] | None = None) -> list[str]:
    """``GET /metrics`` of each replica."""
    return [
        httpx.get(f"{address}/metrics", timeout=60, headers=headers).text
        for address in cluster.call("addresses")
    ]


def mean_batch(cluster: Nodes, seconds: float) -> float:
    """Mean images per batch of a replica, with 32 connections that request single images."""

    def images_and_batches() -> tuple[float, float]:
        texts = replicas_metrics(cluster)
        images, batches = (
            sum(
                float(value)
                for text in texts
                for value in re.findall(rf"^figment_batch_images_{name}{{.*}} (\S+)$", text, re.M)
            )
            for name in ("sum", "count")
        )
        return images, batches

    before = images_and_batches()
    run_load(URLS["Ray"], Scenario(32, 1), seconds)
    after = images_and_batches()
    return (after[0] - before[0]) / (after[1] - before[1])


def measure_outage(cluster: Nodes, event: str, *command: Any, seconds: float) -> None:
    """Print the failures of 32 connections for ``seconds`` after a command that kills something."""
    content = request("/generate?format=png", {"n": 1, "seed": 3})
    load = Load(PORT, itertools.repeat(content), Policy(connections=32))
    with load.running():
        time.sleep(STABLE_SECONDS)
        cluster.call(*command)
        time.sleep(seconds)
    failed = ", ".join(f"{number} {reason}" for reason, number in load.failed.items()) or "none"
    print(
        f"{event}: {load.outcomes.total()} requests, failed: {failed}; "
        f"longest request {load.longest:.2f} s"
    )


@click.command()
@click.option("--rounds", default=3, show_default=True)
@click.option("--seconds", default=4.0, show_default=True, help="Duration of each measurement.")
def main(rounds: int, seconds: float) -> None:
    """Compare the service on Ray with a plain server, then kill a replica and a node."""
    with tempfile.TemporaryDirectory() as folder:
        models = untrained_model(Path(folder)).parent.parent.parent
        variables = {"FIGMENT_MODELS": str(models), "FIGMENT_ALLOW_ANONYMOUS": "true"}
        # Longer than any wait here, so that no request is rejected.
        variables["FIGMENT_MAX_WAIT"] = "30"
        plain = [PYTHON, "-m", "service", "--models", str(models), "--max-wait", "30"]
        plain += ["--threads", str(THREADS), "--port", str(PORTS["figment"])]
        with (
            running_nodes(two_node_config(PORT, variables)) as cluster,
            server("figment", plain) as (_, start_seconds),
        ):
            report(measure(rounds, seconds))
            batch = mean_batch(cluster, seconds)
            print(f"\nmean batch of a replica, 32 connections: {batch:.1f} images")
            print(f"start: plain {start_seconds:.1f} s, cluster {cluster.start_seconds:.0f} s")
            pid = cluster.call("replicas")[0]
            measure_outage(cluster, "a replica killed", "kill", pid, seconds=REPLICA_LOSS_SECONDS)
            measure_outage(cluster, "a node lost", "remove_node", seconds=NODE_LOSS_SECONDS)


if __name__ == "__main__":
    main()
