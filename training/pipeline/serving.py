"""Reload of a running service over HTTP."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import urllib3
from urllib3.exceptions import HTTPError

from training.errors import RunError

TIMEOUT_SECONDS = 120
"""A reload checks and warms every new model."""


def trouble(server: str) -> str | None:
    """Sentence on why ``server`` cannot be reloaded now; None if it answers."""
    try:
        _request("GET", f"{server}/healthz")
    except RunError as error:
        return str(error)
    return None


def reload(server: str, model: Path) -> str:
    """Reload ``server`` and return the address of ``model``, the folder ``.../NAME/VERSION``.

    Raises ``RunError`` if the service cannot be reached, or does not serve the model afterwards.
    """
    status, report = _request("POST", f"{server}/models/reload")
    if status != 200:
        raise RunError(f"{server} does not reload: {report.get('detail', status)}")
    name, version = model.parts[-2:]
    refused = [each["reason"] for each in report["refused"] if f"{name}/{version}" in each["path"]]
    if refused:
        raise RunError(f"{server} rejects {model}: {refused[0]}")
    status, found = _request("GET", f"{server}/models/{name}/{version}")
    if status == 404:
        raise RunError(
            f"{server} does not serve {model} after its reload: start it with "
            f"`--models {model.parent.parent.resolve()}`, or copy the folder to its models"
        )
    if status != 200:
        raise RunError(
            f"{server} does not say whether it serves {model}: {found.get('detail', status)}"
        )
    return f"{server}/?model={name} serves version {version}"


def _request(method: str, url: str) -> tuple[int, Any]:
    """Status and JSON of the answer. Raises ``RunError`` without one, and for 401 and 403."""
    key = os.environ.get("FIGMENT_API_KEY")
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    try:
        answer = urllib3.request(
            method, url, headers=headers, timeout=TIMEOUT_SECONDS, retries=False
        )
    except HTTPError as error:
        reason = str(error).rpartition(": ")[2]
        raise RunError(f"no service answers at {url}: {reason}") from error
    if answer.status in (401, 403):
        raise RunError(f"{url} needs an API key that may reload: set FIGMENT_API_KEY")
    try:
        return answer.status, json.loads(answer.data)
    except ValueError as error:
        raise RunError(f"{url} is no Figment service: it answers {answer.status}") from error
