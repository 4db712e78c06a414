"""Ray cluster of two nodes on this machine, with the service on it.

    python -m benchmarks.ray_nodes CONFIG.yaml

Needs Ray, which listens on all addresses; starts in 20 to 40 s and exits at the end of its input.
``cluster`` and the tests of the cluster start it. Reads commands as lines of JSON, a list of the
command's name and arguments, and prints the result of each as a line of JSON.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import ray
import yaml
from ray.cluster_utils import Cluster
from ray.serve._private.api import serve_start
from ray.serve.schema import ServeDeploySchema

OBJECT_STORE_BYTES = 100 * 1024 * 1024
"""Per node; near Ray's minimum, since results are small."""
DEPLOY_SECONDS = 180
"""Time for the replicas to start; Serve's own limit is too short for a busy machine."""


class RayNodes:
    """Cluster of two nodes; each public method is a command."""

    def __init__(self, config: dict[str, Any]) -> None:
        self._config = config
        self._cluster = Cluster(
            initialize_head=True,
            head_node_args={
                "num_cpus": 2,
                "include_dashboard": False,
                "object_store_memory": OBJECT_STORE_BYTES,
            },
        )
        self._second = self._cluster.add_node(num_cpus=2, object_store_memory=OBJECT_STORE_BYTES)
        ray.init(address=self._cluster.address, namespace="serve", log_to_driver=False)
        schema = ServeDeploySchema.model_validate(config)
        self.address: str = self._cluster.address
        self._client = serve_start(
            http_options=schema.http_options.model_dump(),
            proxy_location=schema.proxy_location,
            controller_options=schema.controller_options,
        )
        self.deploy()

    def deploy(self, user_config: Any = None) -> list[int]:
        """Deploy the config, optionally with another ``user_config``; return the replicas' pids."""
        if user_config is not None:
            self._config["applications"][0]["deployments"][0]["user_config"] = user_config
        self._client.deploy_apps(ServeDeploySchema.model_validate(self._config))
        deadline = time.monotonic() + DEPLOY_SECONDS
        while (status := self._application()["status"]) != "RUNNING":
            assert status != "DEPLOY_FAILED" and time.monotonic() < deadline, self._application()
            time.sleep(0.1)
        return self.replicas()

    def replicas(self) -> list[int]:
        """Process ids of all running replicas."""
        return [
            replica["pid"]
            for replica in self._application()["deployments"]["figment"]["replicas"]
            if replica["state"] == "RUNNING"
        ]

    def _application(self) -> dict[str, Any]:
        """Status and deployments of the service."""
        found: dict[str, Any] = self._client.get_serve_details()["applications"]["figment"]
        return found

    def addresses(self) -> list[str]:
        """URL of each running replica, behind Serve's proxies."""
        groups = ray.get(self._client._controller.get_target_groups.remote(from_proxy_manager=True))
        return [f"http://{target.ip}:{target.port}" for group in groups for target in group.targets]

    def kill(self, pid: int) -> None:
        """Kill a process with SIGKILL."""
        os.kill(pid, signal.SIGKILL)

    def remove_node(self) -> None:
        """Kill the second node with all its processes."""
        self._cluster.remove_node(self._second, allow_graceful=False)

    def shut_down(self) -> None:
        """Stop all processes of the cluster."""
        ray.shutdown()
        # Some of Ray's functions have no types.
        self._cluster.shutdown()  # type: ignore[no-untyped-call]


def main(path: str) -> None:
    # Ray's own processes write to stdout as well: send that to stderr, and keep stdout for results.
    results = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    started = time.monotonic()
    nodes = RayNodes(yaml.safe_load(Path(path).read_text()))
    try:
        seconds = time.monotonic() - started
        print(json.dumps({"seconds": seconds, "address": nodes.address}), file=results)
        for line in sys.stdin:
            name, *arguments = json.loads(line)
            print(json.dumps(getattr(nodes, name)(*arguments)), file=results)
    finally:
        nodes.shut_down()


if __name__ == "__main__":
    main(sys.argv[1])
