"""HTTP client with retries, backoff and Retry-After."""

from __future__ import annotations

import json
import operator
import os
import time
from collections.abc import Callable, Mapping
from typing import Any

import urllib3
from urllib3.exceptions import (
    ConnectTimeoutError,
    HTTPError,
    InvalidHeader,
    LocationValueError,
    NewConnectionError,
    ReadTimeoutError,
)

from service.errors import ClientError, RequestRejected, Unreachable
from service.formats.registry import MEDIA_TYPES

CONNECT_SECONDS = 10.0
FIRST_ANSWER_SECONDS = 4.0
"""Retry budget before the first answer: a wrong address or a service that is not running shows
within seconds, and a service that starts has time to listen."""
FIRST_WAIT_SECONDS, MAX_WAIT_SECONDS = 0.5, 10.0
"""Backoff if the server sends no Retry-After; doubled after each failure."""
RETRY_STATUSES = (429, 500, 502, 503, 504)
"""Statuses after which the same request may succeed later."""


class HttpClient:
    """Connection pool to one server, with its timeout and retry budget."""

    def __init__(
        self,
        url: str | None = None,
        *,
        timeout: float = 60.0,
        patience: float = 300.0,
        api_key: str | None = None,
        on_message: Callable[[str], None] | None = None,
    ) -> None:
        """``url`` may have a path; without it, it is :func:`default_url`.

        timeout: read timeout of a connection in seconds.
        patience: retry budget: seconds without an image during which requests are retried.
        api_key: defaults to the environment variable FIGMENT_API_KEY.
        on_message: called with a sentence before each retry.
        """
        self.url = (url or default_url()).rstrip("/")
        self._patience = patience
        self.has_answered = False
        key = os.environ.get("FIGMENT_API_KEY") if api_key is None else api_key
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}
        self.on_message = on_message or _ignore
        self._pool = urllib3.PoolManager(
            retries=False, timeout=urllib3.Timeout(connect=CONNECT_SECONDS, read=timeout)
        )

    @property
    def patience(self) -> float:
        """Retry budget in seconds; smaller until the server has answered for the first time."""
        return self._patience if self.has_answered else min(self._patience, FIRST_ANSWER_SECONDS)

    def request(self, path: str, body: Mapping[str, Any] | None, media: str) -> Any:
        """Unread urllib3 response to a POST of ``body``, or to a GET if it is None.

        Raises ``RequestRejected``, or ``RetryLater`` if the same request may succeed later.
        """
        try:
            answer = self._pool.request(
                "GET" if body is None else "POST",
                self.url + path,
                body=None if body is None else json.dumps(body, default=operator.index),
                headers={
                    "Accept": media,
                    "Content-Type": MEDIA_TYPES["json"],
                    **self._headers,
                },
                preload_content=False,
                redirect=False,
            )
            self.has_answered = True
            if answer.status == 200:
                return answer
            problem = _problem(answer)
        except LocationValueError as error:
            raise ClientError(
                f"{self.url} is not a server address such as http://localhost:8000: {error}"
            ) from error
        except HTTPError as error:
            cause = getattr(error, "reason", error)
            if not isinstance(cause, NewConnectionError | ConnectTimeoutError):
                self.has_answered = True  # it took the connection
            raise RetryLater(f"{self.url} cannot be reached: {error}") from error
        if problem is None:
            raise RetryLater("the response was truncated")
        if answer.status not in RETRY_STATUSES:
            raise RequestRejected(problem)
        raise RetryLater(problem["detail"], _retry_after(answer))

    def json(self, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """JSON response, with retries. Raises ``RequestRejected``, ``Unreachable``."""
        budget = RetryBudget(self)
        while True:
            try:
                with self.request(path, body, MEDIA_TYPES["json"]) as answer:
                    if content := answer.read():
                        return json.loads(content)
                budget.wait("the response was truncated")
            except ValueError as error:
                raise ClientError(f"{self.url} does not answer in JSON: {error}") from error
            except RetryLater as error:
                budget.wait(str(error), error.seconds)
            except HTTPError as error:
                budget.wait(describe_error(error))


def default_url() -> str:
    """``FIGMENT_SERVER``; else this machine, at the port ``FIGMENT_PORT`` or 8000."""
    port = os.environ.get("FIGMENT_PORT") or "8000"
    return os.environ.get("FIGMENT_SERVER") or f"http://localhost:{port}"


class RetryLater(Exception):
    """A retry may succeed in ``seconds``; None if the server sent no Retry-After."""

    def __init__(self, why: str, seconds: float | None = None) -> None:
        super().__init__(why)
        self.seconds = seconds


class RetryBudget:
    """Time since the last progress, and the backoff before the next retry."""

    def __init__(self, client: HttpClient) -> None:
        self._client = client
        self.renew()

    def renew(self) -> None:
        """Reset after progress."""
        self._since = time.monotonic()
        self._wait = 0.0

    def wait(self, why: str, seconds: float | None = None) -> None:
        """Sleep for ``seconds``, but at least for the backoff: 0 at first, then doubled.

        Raises ``Unreachable`` if the budget would be exceeded.
        """
        seconds = max(seconds or 0, self._wait)
        self._wait = min(2 * self._wait or FIRST_WAIT_SECONDS, MAX_WAIT_SECONDS)
        patience = self._client.patience
        if time.monotonic() + seconds - self._since > patience:
            hint = ""
            if seconds > MAX_WAIT_SECONDS:
                hint = f"; the server's Retry-After is {seconds:g} s"
            if not self._client.has_answered:
                hint = ": is the service running? FIGMENT_SERVER and --server name another address"
            raise Unreachable(f"{why}; no image for {patience:g} s, giving up{hint}")
        self._client.on_message(f"{why}; retrying in {seconds:g} s")
        time.sleep(seconds)


def _ignore(message: str) -> None:
    pass


def describe_error(error: Exception) -> str:
    """Cause of a lost connection in a sentence."""
    if isinstance(error, ReadTimeoutError):
        return "the server sent nothing within the timeout"
    return "the connection was cut"


def _retry_after(answer: Any) -> float | None:
    try:
        return urllib3.Retry().get_retry_after(answer)
    except InvalidHeader:
        return None


def _problem(answer: Any) -> dict[str, Any] | None:
    """Problem of an error response, or its status if it has none; None if it was truncated."""
    content = answer.read()
    try:
        problem = json.loads(content)
    except ValueError:
        problem = None
    if isinstance(problem, dict) and "detail" in problem:
        return problem
    return (
        {"status": answer.status, "detail": f"the server answered {answer.status}"}
        if content
        else None
    )
