"""The service on a Ray cluster of two nodes on this machine; tests kill processes and a node.

All tests share one cluster, and the last one removes one of its nodes.
"""

from __future__ import annotations

import contextlib
import http.client
import importlib.util
import itertools
import json
import re
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest

from benchmarks.load import Load, Policy, request
from service.client import Figment
from tests.helpers.server import MODELS, ROOT, environment, serve
from tests.helpers.waiting import wait_until
from tests.service.cluster.conftest import HEADERS, SECRET, SLOW, Cluster

pytestmark = [
    pytest.mark.ray,
    pytest.mark.slow,
    pytest.mark.skipif(
        importlib.util.find_spec("ray") is None, reason='Ray is missing: pip install "figment[ray]"'
    ),
]


@pytest.fixture(scope="module")
def plain(cluster: Cluster) -> Iterator[str]:
    """URL of a plain server with the models that the cluster starts with."""
    with serve("--models", str(cluster.store), "--max-wait", "30") as running:
        yield running.url


def test_load_generator_reports_an_unanswered_request() -> None:
    """The tests below measure with it."""
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

    def answers(connection: socket.socket) -> None:
        with connection:
            while connection.recv(1 << 16):
                connection.sendall(answer)

    def takes(listening: socket.socket) -> None:
        kept = [listening.accept()[0]]  # this one gets no answer
        for _ in range(3):
            threading.Thread(target=answers, args=(listening.accept()[0],)).start()
        with contextlib.closing(listening), contextlib.closing(kept[0]):
            over.wait(60)

    over = threading.Event()
    listening = socket.create_server(("127.0.0.1", 0))
    server = threading.Thread(target=takes, args=(listening,))
    server.start()
    policy = Policy(connections=4, timeout=1)
    load = Load(listening.getsockname()[1], itertools.repeat(request("/a?b", {})), policy)
    with load.running():
        wait_until(lambda: load.outcomes["200"] > 100)
    over.set()
    server.join()
    assert load.failed == {"TimeoutError": 1}
    assert 1 <= load.longest < 5


def test_replicas_and_a_plain_server_return_the_same_bytes(cluster: Cluster, plain: str) -> None:
    paths = [f"/images/digits/1/3/{index}.png" for index in range(60)]
    paths += [f"/images/anime-faces/2/5/{index}.webp?label=red+eyes" for index in range(20)]
    with httpx.Client(base_url=plain, timeout=60) as other:
        for path in paths:
            ours, theirs = cluster.client.get(path), other.get(path)
            assert ours.status_code == 200
            assert ours.content == theirs.content
            assert ours.headers["etag"] == theirs.headers["etag"]
        for format_ in ("zip", "webdataset", "npy", "json"):
            body = {"n": 100, "seed": 4, "model": "digits"}
            ours, theirs = (
                client.post(f"/generate?format={format_}", json=body)
                for client in (cluster.client, other)
            )
            assert ours.content == theirs.content
    made = 'figment_images_total{format="png",model="digits",version="1"}'
    for metrics in cluster.metrics():
        counted = [line.split()[1] for line in metrics.splitlines() if line.startswith(made)]
        assert counted and float(counted[0]) > 0, "one replica has answered nothing"


def test_rejections_equal_those_of_a_plain_server(cluster: Cluster) -> None:
    body = {"n": 1, "model": "digits"}
    with httpx.Client(base_url=cluster.url, timeout=60) as anyone:
        refused = anyone.post("/generate", json=body, headers={"X-Request-ID": "our-own"})
        assert anyone.get("/readyz").status_code == 200
    assert refused.status_code == 401
    assert refused.headers["content-type"] == "application/problem+json"
    assert refused.headers["www-authenticate"] == 'Bearer realm="figment"'
    assert refused.headers.get_list("x-request-id") == ["our-own"]
    assert refused.headers["x-content-type-options"] == "nosniff"
    assert refused.json()["type"] == "urn:figment:no-valid-api-key"

    unknown = cluster.client.post("/generate/conditional", json={"label": "red eys"})
    assert unknown.status_code == 422
    assert "red eyes" in unknown.json()["matches"]
    assert len(unknown.headers.get_list("x-request-id")) == 1

    large = cluster.client.post("/generate", content=b" " * (1 << 20) + b"{}")
    assert large.status_code == 413
    assert large.json()["type"] == "urn:figment:body-too-large"

    elsewhere = cluster.client.post("/models/reload")
    assert elsewhere.status_code == 409
    assert "user_config" in elsewhere.json()["detail"]


def test_rate_limit_returns_429_with_retry_after(cluster: Cluster) -> None:
    headers = {"Authorization": f"Bearer {SLOW}"}
    for _ in range(4):  # each of two replicas has its own budget of 1,024 images at once
        answer = cluster.client.post(
            "/generate", json={"n": 1024, "model": "digits"}, headers=headers
        )
        if answer.status_code == 429:
            break
    assert answer.status_code == 429
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["type"] == "urn:figment:too-many-images-for-this-key"
    assert int(answer.headers["retry-after"]) >= 1


def test_stream_is_paused_for_a_slow_client_and_stopped_when_it_disconnects(
    cluster: Cluster,
) -> None:
    address = httpx.URL(cluster.url)
    connection = http.client.HTTPConnection(address.host, address.port or 80)
    body = json.dumps({"n": 1_000_000, "seed": 1, "model": "anime-faces"})
    headers = {"Content-Type": "application/json", **HEADERS}
    connection.request("POST", "/generate?format=npy", body, headers)
    answer = connection.getresponse()
    assert answer.status == 200
    assert len(answer.read(100_000)) == 100_000

    def computed() -> float:
        """Images that the key was charged for."""
        charged = re.findall(
            r'^figment_key_images_total{key="lab"} (\S+)$', "\n".join(cluster.metrics()), re.M
        )
        return sum(map(float, charged))

    seen = [-1.0]

    def paused() -> bool:
        seen.append(computed())
        return seen[-1] == seen[-2]

    wait_until(paused, every=0.5)
    assert seen[-1] - seen[1] < 5000, "images of 12 kB each that are buffered"
    connection.close()

    def stopped() -> bool:
        metrics = cluster.metrics()
        return any('figment_streams_cut_total{reason="' in each for each in metrics) and all(
            "figment_streams 0.0" in each and "figment_queue_images 0.0" in each for each in metrics
        )

    wait_until(stopped)


def test_killed_replica_fails_no_request(cluster: Cluster) -> None:
    load = cluster.load()
    before = cluster.nodes.call("replicas")
    assert len(before) == 2
    with load.running():
        wait_until(lambda: load.outcomes["200"] > 200)
        cluster.nodes.call("kill", before[0])
        # Wait for the new replica, then for more answers.
        wait_until(lambda: len(set(cluster.nodes.call("replicas")) - {before[0]}) == 2)
        served = load.outcomes["200"]
        wait_until(lambda: load.outcomes["200"] > served + 200)
    assert load.failed == {}
    assert load.longest < 5, "seconds of a single request"


def test_client_resumes_its_stream_after_a_killed_replica(cluster: Cluster, plain: str) -> None:
    figment = Figment(cluster.url, api_key=SECRET)
    ours = figment.stream(3000, seed=8, model="anime-faces")
    images = [next(ours).image for _ in range(100)]
    killed = cluster.nodes.call("replicas")[0]  # it may or may not be the one that sends
    cluster.nodes.call("kill", killed)
    images += [sample.image for sample, _ in zip(ours, range(300), strict=False)]
    theirs, _ = Figment(plain).generate(400, seed=8, model="anime-faces")
    assert np.array_equal(np.stack(images), theirs)
    wait_until(lambda: len(set(cluster.nodes.call("replicas")) - {killed}) == 2)


def test_all_replicas_reload_models_under_load(cluster: Cluster) -> None:
    load = cluster.load()
    shutil.copytree(MODELS / "digits" / "2", cluster.store / "digits" / "2")

    def everywhere() -> bool:
        served = 'figment_model_info{model="digits",sha256='
        return all(
            any(
                line.startswith(served) and 'version="2"' in line and line.endswith(" 1.0")
                for line in metrics.splitlines()
            )
            for metrics in cluster.metrics()
        )

    before = set(cluster.nodes.call("replicas"))
    with load.running():
        wait_until(lambda: load.outcomes["200"] > 100)
        assert not everywhere()
        cluster.nodes.call("deploy", {"models": "2"})
        wait_until(everywhere)
        served = load.outcomes["200"]
        wait_until(lambda: load.outcomes["200"] > served + 200)
    assert load.failed == {}
    assert set(cluster.nodes.call("replicas")) == before, (
        "they were to go on, and not to be replaced"
    )
    assert {cluster.client.get("/models/digits").json()["version"] for _ in range(20)} == {2}


def fetch(url: str, out: Path, key: str = "") -> subprocess.Popen[str]:
    options = "-n 5000 --per-file 500 --format zip --seed 6 --model digits --model-version 1"
    return subprocess.Popen(
        [
            sys.executable,
            "-m",
            "service",
            "fetch",
            *options.split(),
            *("--out", str(out), "--server", url),
        ],
        cwd=ROOT,
        env=environment() | {"FIGMENT_API_KEY": key},
        stderr=subprocess.PIPE,
        text=True,
    )


def test_lost_node_does_not_change_a_fetched_dataset(
    cluster: Cluster, plain: str, tmp_path: Path
) -> None:
    with fetch(plain, tmp_path / "plain") as undisturbed:
        assert undisturbed.wait(120) == 0
    with fetch(cluster.url, tmp_path / "ours", SECRET) as disturbed:
        wait_until(lambda: len(list((tmp_path / "ours").glob("*.zip"))) >= 2)
        cluster.nodes.call("remove_node")
        assert disturbed.wait(180) == 0, disturbed.stderr and disturbed.stderr.read()
    names = sorted(path.name for path in (tmp_path / "plain").iterdir())
    assert sorted(path.name for path in (tmp_path / "ours").iterdir()) == names
    assert len([name for name in names if name.endswith(".zip")]) == 10
    for name in names:
        if name.endswith(".zip"):
            ours, theirs = tmp_path / "ours" / name, tmp_path / "plain" / name
            assert ours.read_bytes() == theirs.read_bytes()
