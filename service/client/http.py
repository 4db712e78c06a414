"""Requests to a server that may be busy, away or cut off for a while."""

from __future__ import annotations

import json
import operator
import os
import time
from collections.abc import Callable, Mapping
from typing import Any

import urllib3
from urllib3.exceptions import HTTPError, InvalidHeader, LocationValueError, ReadTimeoutError

from service.errors import ClientError, RequestRejected, Unreachable
from service.formats.negotiation import MEDIA_TYPES

CONNECT_SECONDS = 10.0
FIRST_WAIT, MAX_WAIT = 0.5, 10.0
"""Seconds between requests that fail, where the server does not say; doubled each time."""
PASSING = (429, 500, 502, 503, 504)
"""Statuses after which the same request may succeed later."""


class HttpClient:
    """Where to ask, and how patiently."""

    def __init__(
        self,
        url: str,
        *,
        timeout: float = 60.0,
        patience: float = 300.0,
        api_key: str | None = None,
        tell: Callable[[str], None] | None = None,
    ) -> None:
        """``url`` may have a path.

        timeout: seconds without a byte after which a connection is given up.
        patience: seconds without an image during which requests are tried again.
        api_key: what the server lets in; left out, what FIGMENT_API_KEY holds.
        tell: is told in a sentence why nothing comes at the moment.
        """
        self.url = url.rstrip("/")
        self.patience = patience
        key = os.environ.get("FIGMENT_API_KEY") if api_key is None else api_key
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}
        self.tell = tell or _keep_silent
        self._pool = urllib3.PoolManager(
            retries=False, timeout=urllib3.Timeout(connect=CONNECT_SECONDS, read=timeout)
        )

    def ask(self, path: str, body: Mapping[str, Any] | None, media: str) -> Any:
        """The answer (urllib3's, not yet read) to a POST of ``body``, or a GET where it is None.

        Raises ``RequestRejected``, and ``RetryLater`` where the same request may succeed later.
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
            if answer.status == 200:
                return answer
            problem = _problem(answer)
        except LocationValueError as error:
            raise ClientError(
                f"{self.url} is no address of a server, such as http://localhost:8000: {error}"
            ) from error
        except HTTPError as error:
            raise RetryLater(f"{self.url} cannot be reached: {error}") from error
        if problem is None:
            raise RetryLater("the answer was cut")
        if answer.status not in PASSING:
            raise RequestRejected(problem)
        raise RetryLater(problem["detail"], _retry_after(answer))

    def json(self, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """Answer as JSON, with retries. Raises ``RequestRejected``, ``Unreachable``."""
        patience = RetryBudget(self)
        while True:
            try:
                with self.ask(path, body, MEDIA_TYPES["json"]) as answer:
                    if content := answer.read():
                        return json.loads(content)
                patience.wait("the answer was cut")
            except ValueError as error:
                raise ClientError(f"{self.url} does not answer in JSON: {error}") from error
            except RetryLater as error:
                patience.wait(str(error), error.seconds)
            except HTTPError as error:
                patience.wait(describe_error(error))


class RetryLater(Exception):
    """The same request may succeed in ``seconds``; None where the server does not say when."""

    def __init__(self, why: str, seconds: float | None = None) -> None:
        super().__init__(why)
        self.seconds = seconds


class RetryBudget:
    """How long there was nothing but trouble, and when to try again."""

    def __init__(self, server: HttpClient) -> None:
        self._server = server
        self.renew()

    def renew(self) -> None:
        """There was progress."""
        self._since = time.monotonic()
        self._wait = 0.0

    def wait(self, why: str, seconds: float | None = None) -> None:
        """Sleep for ``seconds`` at least; without, not at all at first and then ever longer.

        Raises ``Unreachable``.
        """
        seconds = max(seconds or 0, self._wait)
        self._wait = min(2 * self._wait or FIRST_WAIT, MAX_WAIT)
        patience = self._server.patience
        if time.monotonic() + seconds - self._since > patience:
            asked = f", and the server asks for {seconds:g} s" if seconds > MAX_WAIT else ""
            raise Unreachable(
                f"{why}; given up: there is patience for {patience:g} s without an image{asked}"
            )
        self._server.tell(f"{why}; asking again in {seconds:g} s")
        time.sleep(seconds)


def _keep_silent(message: str) -> None:
    pass


def describe_error(error: Exception) -> str:
    """In plain words."""
    if isinstance(error, ReadTimeoutError):
        return "nothing has come for a while"
    return "the connection was cut"


def _retry_after(answer: Any) -> float | None:
    try:
        return urllib3.Retry().get_retry_after(answer)
    except InvalidHeader:
        return None


def _problem(answer: Any) -> dict[str, Any] | None:
    """What an error's answer says, or its status where it is none of ours; None if it was cut."""
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
