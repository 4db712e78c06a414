"""Faults inside the service: the affected requests get an error, others are not affected."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.server.server import FAILED_STATUS
from tests.conftest import attribute, manifest
from tests.helpers import faulty_server, onnx_files
from tests.helpers.process_stats import Figures, unharmed, warm
from tests.helpers.server import Server, serve
from tests.helpers.waiting import wait_until

pytestmark = pytest.mark.server

SETS = ("npy", "zip", "webdataset", "parquet")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``plain``, and ``sees`` and ``blind``, whose verifiers return the mean and NaN."""
    folder = tmp_path_factory.mktemp("models")
    onnx_files.put(folder, "plain", 1, onnx_files.model(manifest(name="plain")))
    for name, expression in (("sees", "mean"), ("blind", "nan")):
        about = manifest(attribute("eyes", "red", "blue"), name=name)
        path = onnx_files.put(folder, name, 1, onnx_files.model(about))
        path.with_name("verifier.onnx").write_bytes(onnx_files.bright_verifier(about, expression))
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Folder whose files control the faults."""
    path = tmp_path / "faults"
    path.mkdir()
    return path


@pytest.fixture(scope="module")
def faults(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("faults")


@pytest.fixture(scope="module")
def server(models: Path, faults: Path) -> Iterator[Server]:
    with broken(models, faults) as running:
        warm(running)
        yield running


def broken(models: Path, faults: Path, *options: str) -> Any:
    program = ("tests.helpers.faulty_server", str(faults))
    bounds = ("--threads", "2", "--hang-timeout", "1", "--max-wait", "30")
    return serve("--models", str(models), *bounds, *options, program=program)


def ask(server: Server, format_: str = "json", **body: Any) -> httpx.Response:
    """On a new connection."""
    return server.client.post(
        f"/generate?format={format_}",
        json={"model": "plain", **body},
        headers={"Connection": "close"},
    )


def ask_for_set(
    server: Server, format_: str, **body: Any
) -> AbstractContextManager[httpx.Response]:
    return server.client.stream(
        "POST",
        f"/generate?format={format_}",
        json={"model": "plain", **body},
        headers={"Connection": "close"},
    )


def problem_detail(answer: httpx.Response, status: int) -> str:
    """``detail`` of a problem response with this status."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert "Traceback" not in answer.text
    detail: str = answer.json()["detail"]
    return detail


@pytest.mark.parametrize(
    ("seed", "sentence"),
    [
        (faulty_server.RAISES, "the model could not be run; the service's log says why"),
        (faulty_server.NOT_A_NUMBER, "the model returned float32 of shape"),
        (faulty_server.WRONG_SHAPE, "(16, 15, 16, 3) instead of uint8 of shape (16, 16, 16, 3)"),
        (faulty_server.WRONG_COUNT, "(15, 16, 16, 3) instead of uint8 of shape (16, 16, 16, 3)"),
    ],
)
@pytest.mark.parametrize("format_", ["json", "png", *SETS])
def test_failing_model_is_answered_500(
    server: Server, seed: int, sentence: str, format_: str
) -> None:
    with unharmed(server):
        before = Figures(server)
        assert sentence in problem_detail(ask(server, format_, n=48, seed=seed), 500)
        after = Figures(server)
        assert after("batches_failed_total") > before("batches_failed_total")
        for name, labels in (
            ("http_requests_total", {"route": "/generate", "status": "500"}),
            ("rejections_total", {"reason": "inference-failed"}),
        ):
            assert after(name, **labels) == before(name, **labels) + 1
        assert after("images_total") == before("images_total")


@pytest.mark.parametrize("format_", SETS)
def test_failing_model_aborts_a_set(server: Server, format_: str) -> None:
    with unharmed(server):
        before = Figures(server)
        with (
            ask_for_set(server, format_, n=100_000, seed=faulty_server.RAISES_LATE) as answer,
            pytest.raises(httpx.RemoteProtocolError),
        ):
            assert answer.status_code == 200
            for _ in answer.iter_raw():
                pass
        wait_until(lambda: Figures(server)("streams") == 0)
        after = Figures(server)
        reason = {"reason": "inference-failed"}
        assert after("streams_cut_total", **reason) == before("streams_cut_total", **reason) + 1
        assert after("streams_cut_total") == before("streams_cut_total") + 1
        made = after("images_total") - before("images_total")
        assert faulty_server.LATE - 1024 < made <= faulty_server.LATE


def test_other_requests_in_a_failed_batch_get_500_or_their_images(server: Server) -> None:
    """They fail with it or succeed, and never get images of others."""
    expected = ask(server, n=3, seed=3).json()["images"]
    with unharmed(server), ThreadPoolExecutor(32) as pool:
        seeds = [faulty_server.RAISES, 3, 3, 3] * 40
        answers = list(pool.map(lambda seed: ask(server, n=3, seed=seed), seeds))
    good = [answer for answer in answers if answer.status_code == 200]
    assert all(answer.json()["images"] == expected for answer in good)
    assert {answer.status_code for answer in answers} == {200, 500}
    assert all(problem_detail(answer, 500) for answer in answers if answer.status_code != 200)


@pytest.mark.parametrize("seed", [faulty_server.HANGS, faulty_server.HANGS_IN_ENCODER])
def test_hang_ends_the_process_after_other_accepted_requests(
    models: Path, folder: Path, seed: int
) -> None:
    with broken(models, folder) as server, ThreadPoolExecutor(1) as pool:
        # Of another model, as a batch may combine a set and a request of the same.
        with ask_for_set(server, "npy", model="sees", n=100_000) as answer:
            parts = answer.iter_raw()
            size = len(next(parts))
            hang = pool.submit(ask, server, seed=seed)
            assert "the batch did not finish within 1 s" in problem_detail(hang.result(), 500)
            size += sum(map(len, parts))
        assert size == int(answer.headers["content-length"])
        assert server.process.wait(20) == FAILED_STATUS
    log = "".join(server.log)
    assert "ERROR worker thread hung in a batch of plain (requests " in log
    assert "shutting down, to be restarted: a worker thread hangs (status 70)" in log


@pytest.mark.parametrize("format_", ["json", *SETS[1:]])
def test_failing_encoder_is_answered_500(server: Server, format_: str) -> None:
    with unharmed(server):
        before = Figures(server)
        answer = ask(server, format_, n=48, seed=faulty_server.NOT_ENCODED)
        assert "the service failed on this request; its log says why" in problem_detail(answer, 500)
        after = Figures(server)
        assert after("batches_failed_total") == before("batches_failed_total")
        reason = {"reason": "internal-error"}
        assert after("rejections_total", **reason) == before("rejections_total", **reason) + 1


@pytest.mark.slow
def test_encoder_threads_fail_and_hang_like_others(models: Path, folder: Path) -> None:
    """As with a GPU."""
    (folder / faulty_server.ENCODERS).touch()
    with broken(models, folder) as server:
        warm(server)
        with unharmed(server):
            assert "its log says why" in problem_detail(
                ask(server, seed=faulty_server.NOT_ENCODED), 500
            )
        problem_detail(ask(server, seed=faulty_server.HANGS_IN_ENCODER), 500)
        assert server.process.wait(20) == FAILED_STATUS


@pytest.mark.slow
def test_hung_shutdown_is_cut_short(models: Path, folder: Path) -> None:
    (folder / faulty_server.CLOSING).touch()
    with broken(models, folder, "--drain", "1") as server:
        server.process.terminate()
        assert server.process.wait(20) == 0
        said = "shutdown timed out: exiting while a thread or a task still runs"
        wait_until(lambda: said in server.log[-1])  # another thread reads the log


def test_nan_from_the_verifier_is_answered_500(server: Server) -> None:
    """NaN is a failure of the verifier, not a rejected image."""
    with unharmed(server):
        found, failed = (
            ask(server, model=model, label="red", n=5, verify=0.3) for model in ("sees", "blind")
        )
        assert len(found.json()["images"]) == 5
        sentence = problem_detail(failed, 500)
        assert sentence == "the verifier returned a probability that is NaN or infinite"


def test_clock_jump_changes_no_timeout(server: Server, faults: Path) -> None:
    """By a day, there and back: timeouts use the monotonic clock."""
    clock = faults / faulty_server.CLOCK
    for jump in ("86400", "-86400", "0"):
        with unharmed(server):
            before = Figures(server)
            with ask_for_set(server, "npy", n=20_000) as answer:
                parts = answer.iter_raw()
                size = len(next(parts))
                clock.write_text(jump)
                assert ask(server, n=64).status_code == 200
                size += sum(map(len, parts))
            assert size == int(answer.headers["content-length"])
            timing = ask(server).headers["server-timing"]
            assert all(0 <= float(part.partition("=")[2]) < 10_000 for part in timing.split(","))
            after = Figures(server)
            for name in ("threads_hung_total", "rejections_total"):
                assert after(name) == before(name)
            for reason in ("reader", "deadline-passed"):  # what waits for a time
                cut = "streams_cut_total"
                assert after(cut, reason=reason) == before(cut, reason=reason)
            seconds = "http_request_seconds_sum"
            assert 0 < after(seconds) - before(seconds) < 60


def test_rate_limit_ignores_the_wall_clock(models: Path, folder: Path) -> None:
    few = ("--rate-limit", "1", "--max-images", "64")
    with broken(models, folder, *few) as server:
        assert ask(server, n=64).status_code == 200
        for jump in ("86400", "-86400"):
            (folder / faulty_server.CLOCK).write_text(jump)
            assert "this key may have" in problem_detail(ask(server, n=64), 429)


def test_removed_models_folder_does_not_affect_served_models(models: Path, tmp_path: Path) -> None:
    """Served models are in memory; the folder matters at the next start."""
    folder = tmp_path / "models"
    shutil.copytree(models, folder)
    with serve("--models", str(folder)) as server:
        warm(server)
        served = server.client.get("/models").json()
        with unharmed(server):
            onnx_files.put(folder, "plain", 2, b"no model")
            for path in folder.rglob("*.onnx"):
                path.write_bytes(path.read_bytes()[:1000])
            assert server.client.get("/models").json() == served
            images = ask(server, n=40, seed=3)
            assert images.status_code == 200
            shutil.rmtree(folder)
            assert server.client.get("/models").json() == served
            assert ask(server, n=40, seed=3).content == images.content
            answer = ask(server, model="sees", label="red", n=5, verify=0.3)
            assert answer.status_code == 200
