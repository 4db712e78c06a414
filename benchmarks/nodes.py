"""A Ray cluster of two nodes on this machine, with the service on it.

    python -m benchmarks.nodes CONFIG.yaml

Runs as a process of its own: reads commands as lines of JSON, answers each with a line of JSON, and
exits at the end of its input.
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

OBJECTS = 100 * 1024 * 1024
"""Object store memory of each node, in bytes; results are small."""


class Nodes:
    """Cluster; each public method is a command, and its result the answer."""

    def __init__(self, config: dict[str, Any]) -> None:
        self._config = config
        self._cluster = Cluster(
            initialize_head=True,
            head_node_args={
                "num_cpus": 2,
                "include_dashboard": False,
                "object_store_memory": OBJECTS,
            },
        )
        self._second = self._cluster.add_node(num_cpus=2, object_store_memory=OBJECTS)
        ray.init(address=self._cluster.address, namespace="serve", log_to_driver=False)
        schema = ServeDeploySchema.model_validate(config)
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
        self._client.deploy_apps(ServeDeploySchema.model_validate(self._config), _blocking=True)
        return self.replicas()

    def replicas(self) -> list[int]:
        """Process ids of all running replicas."""
        found = self._client.get_serve_details()["applications"]["figment"]["deployments"]
        return [
            replica["pid"]
            for replica in found["figment"]["replicas"]
            if replica["state"] == "RUNNING"
        ]

    def kill(self, pid: int) -> None:
        os.kill(pid, signal.SIGKILL)

    def remove_node(self) -> None:
        """Kill the second node with all its processes."""
        self._cluster.remove_node(self._second, allow_graceful=False)

    def end(self) -> None:
        ray.shutdown()
        # Some of Ray's functions have no types.
        self._cluster.shutdown()  # type: ignore[no-untyped-call]


def main(path: str) -> None:
    # Ray's own processes write to stdout as well.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    started = time.monotonic()
    nodes = Nodes(yaml.safe_load(Path(path).read_text()))
    try:
        print(json.dumps({"seconds": time.monotonic() - started}), file=answers)
        for line in sys.stdin:
            name, *arguments = json.loads(line)
            print(json.dumps(getattr(nodes, name)(*arguments)), file=answers)
    finally:
        nodes.end()


if __name__ == "__main__":
    main(sys.argv[1])
